import math

import pytest
import torch

from agentdistill.signals import DIVERGENCES
from tests.signals.distributions import INF, Case


def plain(pi, t, uncertain):
    def kl(p, q):
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)

    gamma = min(max(1 - uncertain, 0), 1)
    return gamma * kl(pi, t) + (1 - gamma) * kl(t, pi)


def entropy(t):
    return -sum(b * math.log(b) for b in t if b > 0)


@pytest.mark.parametrize("k", [None, 3, 200])
@pytest.mark.parametrize("rows", [1, 2, 5, 100])
def test_value_equals_the_plain_definition_in_blocks_of_tokens(k, rows):
    case = Case.random({"kind": "eakl", "k": k, "rows": rows})
    ours, theirs = (side.exp().tolist() for side in case.data())
    expected = []
    for i, (pi, t) in enumerate(zip(ours, theirs, strict=True)):
        block = theirs[i // rows * rows : i // rows * rows + rows]
        expected.append(plain(pi, t, sum(map(entropy, block)) / len(block) / math.log(k or 7)))
    assert case.value().tolist() == pytest.approx(expected)


def test_an_unsure_teacher_is_covered_and_a_sure_one_sought():
    case = Case.random("eakl", n=2)
    case.teacher = torch.zeros(2, 7, dtype=torch.float64)
    case.teacher[1, 3] = 40.0
    value = case.value()
    fkl, rkl = (DIVERGENCES.resolve(name)(*case.data()) for name in ("fkl", "rkl"))
    assert value[0].item() == pytest.approx(fkl[0].item())
    assert value[1].item() == pytest.approx(rkl[1].item())
    assert abs(fkl[0] - rkl[0]) > 0.1 < abs(fkl[1] - rkl[1])


@pytest.mark.parametrize("padded", [{"student"}, {"teacher"}, {"student", "teacher"}])
def test_padded_rows_are_zero_and_do_not_move_the_mean_entropy(padded):
    case = Case.random({"kind": "eakl", "rows": 4}, n=4)
    with torch.no_grad():
        for side in padded:
            getattr(case, side)[1:] = -INF
    sides = [torch.cat([torch.log_softmax(side[:1], -1), side[1:]]) for side in (case.student, case.teacher)]
    value = case.choice(*sides)
    value.sum().backward()
    alone = DIVERGENCES.resolve("eakl")(sides[0][:1], sides[1][:1])
    assert value.tolist() == [alone.item(), 0, 0, 0]
    assert case.student.grad.isfinite().all()


def test_a_part_of_weight_zero_adds_nothing_even_where_it_is_infinite():
    uniform = torch.log_softmax(torch.tensor([[0.0, 0.0, -INF]], dtype=torch.float64), -1)
    raw = torch.tensor([[1.0, 0.0, 0.5]], dtype=torch.float64, requires_grad=True)
    value = DIVERGENCES.resolve("eakl")(torch.log_softmax(raw, -1), uniform)  # all forward; the reverse KL is infinite
    assert value.item() == pytest.approx(DIVERGENCES.resolve("fkl")(torch.log_softmax(raw, -1), uniform).item())
    value.sum().backward()
    assert raw.grad.isfinite().all()
