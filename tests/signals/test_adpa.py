import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.signals import DIVERGENCES
from tests.signals.distributions import INF, Case


@pytest.mark.parametrize("anchor", [0.0, 0.3, 1.0, 2.0])
def test_value_equals_the_plain_definition(anchor):
    case = Case.random({"kind": "adpa", "anchor": anchor})
    rows = zip(*(side.exp().tolist() for side in case.data()), strict=True)
    expected = [sum(p * (anchor * math.log(p / r) - math.log(t / r)) for p, t, r in zip(*row, strict=True)) for row in rows]
    assert case.value().tolist() == pytest.approx(expected)


@given(seed=st.integers(0, 1000))
def test_a_full_anchor_makes_it_the_reverse_kl_to_the_teacher_whatever_the_reference(seed):
    case = Case.random({"kind": "adpa", "anchor": 1.0}, seed=seed)
    torch.testing.assert_close(case.value(), DIVERGENCES.resolve("rkl")(*case.data()[:2]))


def descend(spec, rate=2.0):
    """Where gradient descent on the loss takes the student, `[1, V]` probabilities."""
    case = Case.random(spec, n=1, size=4)
    for _ in range(400):
        case.student = (case.student - rate * case.gradient()).detach().requires_grad_()
    return torch.softmax(case.student.detach(), -1), case


def test_without_an_anchor_all_mass_runs_to_the_id_of_largest_advantage():
    pi, case = descend("adpa", rate=30.0)
    assert pi[0, (case.teacher - case.reference)[0].argmax()] > 0.99


@pytest.mark.parametrize("anchor", [0.5, 2.0])
def test_with_an_anchor_the_end_is_the_reference_tilted_by_the_advantage(anchor):
    pi, case = descend({"kind": "adpa", "anchor": anchor})
    torch.testing.assert_close(
        pi, torch.softmax(case.reference + (case.teacher - case.reference) / anchor, -1), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(("anchor", "no_reference", "neither"), [(0.0, -INF, None), (0.5, -INF, INF), (2.0, INF, INF)])
def test_what_one_model_calls_impossible_is_infinite(anchor, no_reference, neither):
    case = Case.random({"kind": "adpa", "anchor": anchor}, n=3)
    case.teacher[(0, 2), 1] = -INF
    case.reference[(1, 2), 1] = -INF
    value = case.value().tolist()
    assert value[:2] == [INF, no_reference]
    assert value[2] == INF if neither else math.isfinite(value[2])
    assert case.gradient().isfinite().all()


def test_it_asks_for_the_distributions_of_teacher_and_reference():
    assert DIVERGENCES.resolve("adpa").needs == {"teacher", "distribution", "reference-distribution"}
