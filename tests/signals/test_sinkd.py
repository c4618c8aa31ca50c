import math

import pytest
import torch

from agentdistill.errors import UserError
from agentdistill.signals import DIVERGENCES
from tests.signals.distributions import Case


def plain(student, teacher, tau, eps, iterations):
    """The definition in loops, on logits."""

    def softmax(z):
        powers = [math.exp(value / tau) for value in z]
        return [power / sum(powers) for power in powers]

    ours, theirs = [softmax(z) for z in student], [softmax(z) for z in teacher]
    n = range(len(ours))
    cost = [[sum(abs(a - b) for a, b in zip(ours[i], theirs[j], strict=True)) for j in n] for i in n]
    plan = [[math.exp(-cost[i][j] / eps) for j in n] for i in n]
    for _ in range(iterations):
        plan = [[value / sum(row) for value in row] for row in plan]
        columns = [sum(plan[i][j] for i in n) for j in n]
        plan = [[plan[i][j] / columns[j] for j in n] for i in n]
    return [sum(plan[i][j] * cost[i][j] for j in n) for i in n], plan


@pytest.mark.parametrize(("tau", "eps", "iterations"), [(2.0, 0.1, 20), (1.0, 0.3, 1), (0.5, 0.05, 5)])
def test_value_equals_the_plain_definition(tau, eps, iterations):
    case = Case.random({"kind": "sinkd", "temperature": tau, "eps": eps, "iterations": iterations})
    expected, _ = plain(case.student.tolist(), case.teacher.tolist(), tau, eps, iterations)
    assert case.value().tolist() == pytest.approx(expected)


def test_published_settings_are_the_defaults():
    params = DIVERGENCES.resolve("sinkd").params
    assert (params["temperature"], params["eps"], params["iterations"]) == (2.0, 0.1, 20)


def test_tokens_are_compared_within_blocks_of_rows_and_with_nothing_else():
    case = Case.random({"kind": "sinkd", "rows": 2})
    expected = []
    for start in (0, 2, 4):
        part = slice(start, start + 2)
        expected += plain(case.student[part].tolist(), case.teacher[part].tolist(), 2.0, 0.1, 20)[0]
    assert case.value().tolist() == pytest.approx(expected)
    assert (case.value() - Case.random("sinkd").value()).abs().max() > 1e-3


def test_one_row_is_its_own_l1_distance():
    case = Case.random({"kind": "sinkd", "rows": 1, "temperature": 1.0})
    torch.testing.assert_close(case.value(), 2 * DIVERGENCES.resolve("tvd")(*case.data()))


def test_it_is_blind_to_the_order_of_the_tokens_and_the_token_wise_term_is_not():
    case = Case.random("sinkd")
    shuffled = torch.tensor([3, 0, 4, 1, 2])
    before, aligned = case.value(), Case.random({"kind": "sinkd", "fkl": 1.0}).value()
    case.teacher = case.teacher[shuffled]
    torch.testing.assert_close(case.value().sum(), before.sum(), rtol=1e-6, atol=0)
    case.spec = {"kind": "sinkd", "fkl": 1.0}
    assert abs(case.value().sum() - aligned.sum()) > 0.1
    torch.testing.assert_close(case.value() - DIVERGENCES.resolve("fkl")(*case.data()), before, rtol=1e-6, atol=1e-9)


def test_each_token_costs_between_nothing_and_two():
    value = Case.random("sinkd", n=40, size=5).value()
    assert value.min() >= 0
    assert value.max() <= 2 + 1e-6


def test_a_regularisation_that_float32_cannot_hold_is_refused():
    with pytest.raises(UserError, match=r"'eps' must be at least 0\.02"):
        DIVERGENCES.resolve({"kind": "sinkd", "eps": 0.001})
    far = torch.full((3, 6), -100.0).scatter(1, torch.arange(3)[:, None], 0.0)
    other = torch.full((3, 6), -100.0).scatter(1, torch.arange(3, 6)[:, None], 0.0)
    assert DIVERGENCES.resolve({"kind": "sinkd", "eps": 0.02, "temperature": 1.0})(far, other).isfinite().all()
