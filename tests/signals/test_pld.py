import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdistill.errors import UserError
from agentdistill.signals import DIVERGENCES
from tests.signals.distributions import INF, Case


def plain(student, teacher, k, tail):
    """By its story: pick the ids one after another, each with its softmax chance among those that are left."""
    order = sorted(range(len(student)), key=lambda v: -teacher[v])
    ranked, rest = order[:k], order[k:]
    weight = [math.exp(teacher[v]) for v in order]
    total = sum(weight[:k]) if tail == "renormalise" else sum(weight)
    loss = 0.0
    for place, v in enumerate(ranked):
        left = ranked[place:] + (rest if tail == "bucket" else [])
        chance = math.exp(student[v]) / sum(math.exp(student[u]) for u in left)
        loss -= weight[place] / total * math.log(chance)
    return loss


@pytest.mark.parametrize("tail", ["bucket", "renormalise"])
@settings(max_examples=30)
@given(seed=st.integers(0, 1000), k=st.integers(1, 7))
def test_value_is_the_weighted_likelihood_of_the_teachers_order(tail, seed, k):
    k = max(k, 2) if tail == "renormalise" else k
    case = Case.random({"kind": "pld", "k": k, "tail": tail}, seed=seed)
    expected = [plain(s, t, k, tail) for s, t in zip(case.student.tolist(), case.teacher.tolist(), strict=True)]
    assert case.value().tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_one_place_of_one_entry_is_no_ranking():
    with pytest.raises(UserError, match=r"divergence 'pld': k = 1 with tail 'renormalise' leaves one id, which is no ranking"):
        DIVERGENCES.resolve({"kind": "pld", "k": 1, "tail": "renormalise"})


@pytest.mark.parametrize("k", [7, 9])
def test_all_places_are_the_default(k):
    torch.testing.assert_close(Case.random({"kind": "pld", "k": k}).value(), Case.random("pld").value())


def test_a_teacher_sure_of_one_id_gives_the_cross_entropy_of_it():
    case = Case.random("pld")
    case.teacher = torch.where(torch.arange(7) == 4, 0.0, -INF).double().expand(5, 7)
    torch.testing.assert_close(case.value(), -torch.log_softmax(case.student, -1)[:, 4])
    expected = torch.softmax(case.student.detach(), -1) - (torch.arange(7) == 4).double()
    torch.testing.assert_close(case.gradient(), expected)


def test_the_order_counts_and_agreement_is_not_the_end():
    case = Case.random("pld", n=1)
    case.teacher = case.student.detach()
    agree = case.value().item()
    assert case.gradient().abs().max() > 0.01  # a student that agrees is still pushed apart
    case.student = (3 * case.student.detach()).requires_grad_()
    assert case.value().item() < agree  # in the same order but surer, it loses less
    case.student = (-case.student.detach()).requires_grad_()
    assert case.value().item() > agree


def test_a_ranked_id_that_the_student_cannot_say_is_an_infinite_loss_and_an_unranked_one_is_not():
    case = Case.random({"kind": "pld", "k": 2}, n=2, size=4)
    case.teacher = torch.tensor([[3.0, 2.0, 1.0, 0.0]] * 2, dtype=torch.float64)
    with torch.no_grad():
        case.student[0, 0] = case.student[1, 2] = -INF
    value = case.value()
    assert value[0] == INF
    assert value[1].item() == pytest.approx(plain(case.student[1].tolist(), case.teacher[1].tolist(), 2, "bucket"))
    assert case.gradient().isfinite().all()
