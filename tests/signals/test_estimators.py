import math

import pytest
import torch

from agentdistill.signals import DIVERGENCES
from agentdistill.signals.estimators import k3
from tests.signals.distributions import Case, probs

INF = float("inf")


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("k1", lambda p, t: math.log(p / t)),
        ("k2", lambda p, t: math.log(p / t) ** 2 / 2),
        ("k3", lambda p, t: t / p - math.log(t / p) - 1),
        ("abs", lambda p, t: abs(math.log(p / t))),
    ],
)
def test_value_is_that_of_the_sampled_token_alone(name, plain):
    ours, theirs = (row[0] for row in (probs(1, 6, 1), probs(1, 6, 2)))
    values = DIVERGENCES.resolve(name)(torch.tensor(ours).double().log(), torch.tensor(theirs).double().log())
    assert values.tolist() == pytest.approx([plain(p, t) for p, t in zip(ours, theirs, strict=True)], rel=1e-6)


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_mean_over_the_students_samples_is_the_reverse_kl(name):
    case = Case.random("rkl")
    student, teacher = (side.detach() for side in case.data())
    mean = (student.exp() * DIVERGENCES.resolve(name)(student.flatten(), teacher.flatten()).view_as(student)).sum(-1)
    torch.testing.assert_close(mean, case.value().detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_k3_keeps_a_bounded_gradient_far_below_the_teacher(dtype):
    logprob = torch.tensor([-300.0, -1.0], dtype=dtype, requires_grad=True)
    k3(logprob, torch.tensor([-1.0, -300.0], dtype=dtype)).sum().backward()
    assert logprob.grad[0].item() == pytest.approx(1 - math.exp(20))
    assert logprob.grad[1].item() == pytest.approx(1.0)


def test_k3_has_no_step_and_no_kink_where_its_tangent_begins():
    logprob = torch.tensor([-20 + 1e-7, -20 - 1e-7], dtype=torch.float64, requires_grad=True)
    value = k3(logprob, torch.zeros(2, dtype=torch.float64))
    value.sum().backward()
    assert value[0].item() == pytest.approx(value[1].item(), rel=1e-6)
    assert logprob.grad[0].item() == pytest.approx(logprob.grad[1].item(), rel=1e-6)


@pytest.mark.parametrize("name", ["k1", "k2", "k3", "abs"])
def test_a_token_impossible_for_the_teacher_is_infinite_and_not_nan(name):
    logprob = torch.tensor([-1.0, -2.0], requires_grad=True)
    value = DIVERGENCES.resolve(name)(logprob, torch.tensor([-INF, -1.0]))
    assert value[0] == INF
    assert value[1].isfinite()
    value.sum().backward()
    assert not logprob.grad.isnan().any()


def test_estimators_ask_for_sampled_log_probs_only():
    assert all(DIVERGENCES.resolve(name).needs == {"teacher"} for name in ("k1", "k2", "k3", "abs"))
