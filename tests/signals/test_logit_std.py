import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.signals.distributions import INF, Case


def plain(student, teacher, tau):
    """The definition on two lists of logits."""

    def softmax(z):
        mean, deviation = statistics.mean(z), statistics.stdev(z)
        powers = [math.exp((value - mean) / deviation / tau) for value in z]
        return [power / sum(powers) for power in powers]

    pi, t = softmax(student), softmax(teacher)
    return tau**2 * sum(b * math.log(b / a) for a, b in zip(pi, t, strict=True))


@given(seed=st.integers(0, 1000), tau=st.floats(0.3, 5))
def test_value_equals_the_plain_definition_on_the_raw_logits(seed, tau):
    case = Case.random({"kind": "logit-std", "temperature": tau}, seed=seed)
    expected = [plain(s, t, tau) for s, t in zip(case.student.tolist(), case.teacher.tolist(), strict=True)]
    assert case.value().tolist() == pytest.approx(expected, rel=1e-8, abs=1e-12)


@given(seed=st.integers(0, 1000), a=st.floats(0.001, 10), b=st.floats(-20, 20), c=st.floats(0.001, 10))
def test_scale_and_offset_of_either_side_do_not_matter(seed, a, b, c):
    case = Case.random("logit-std", seed=seed)
    moved = Case("logit-std", a * case.student + b, c * case.teacher - b, case.reference, case.ids)
    torch.testing.assert_close(moved.value(), case.value(), rtol=1e-8, atol=1e-10)


def test_gradient_moves_neither_offset_nor_scale_of_the_students_logits():
    case = Case.random("logit-std")
    gradient = case.gradient()
    assert gradient.abs().max() > 0.01
    assert gradient.sum(-1).abs().max() < 1e-12
    assert (gradient * case.student.detach()).sum(-1).abs().max() < 1e-12


def test_a_teacher_that_is_the_student_sharpened_teaches_nothing():
    case = Case.random("logit-std")
    case.teacher = 5 * case.student.detach()
    assert case.value().abs().max() < 1e-12
    assert Case("fkl", case.student, case.teacher, case.reference, case.ids).value().min() > 0.1


def test_a_flat_row_is_uniform_and_rounding_is_not_blown_up():
    case = Case.random("logit-std", n=2, size=50)
    flat = torch.log_softmax(torch.zeros(2, 50) + 1e-8 * torch.randn(2, 50, generator=torch.Generator().manual_seed(0)), -1)
    student = flat.requires_grad_()
    value = case.choice(student, flat.detach())
    value.sum().backward()
    assert value.abs().max() < 1e-6
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("row", [[0.0, -INF, -INF], [-INF, -INF, -INF]])
def test_a_row_of_one_possible_id_or_none_is_zero(row):
    student = torch.tensor([row], requires_grad=True)
    value = Case.random("logit-std").choice(student, student.detach())
    value.sum().backward()
    assert value.item() == 0
    assert student.grad.isfinite().all()
