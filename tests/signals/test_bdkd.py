import math

import pytest
import torch

from tests.signals.distributions import Case


def plain(pi, t, token, ce, nu1, nu2):
    def kl(p, q):
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

    return -ce * math.log(pi[token]) + nu1 * kl(t, pi) + nu2 * kl(pi, t)


def entropy(p):
    return -sum(a * math.log(a) for a in p)


@pytest.mark.parametrize(("ce", "nu1", "nu2"), [(1, 1, 1), (1, 2, 0), (0, 0.5, 3), (0.3, 0, 0)])
@pytest.mark.parametrize("rule", ["fixed", "entropy-gap"])
def test_value_equals_the_plain_definition(ce, nu1, nu2, rule):
    case = Case.random({"kind": "bd-kd", "ce": ce, "nu1": nu1, "nu2": nu2, "rule": rule}, n=8)
    ours, theirs = (side.exp().tolist() for side in case.data()[:2])
    expected, certain = [], []
    for pi, t, token in zip(ours, theirs, case.ids.tolist(), strict=True):
        certain.append(entropy(pi) < entropy(t))
        high, low = max(nu1, nu2), min(nu1, nu2)
        factors = (nu1, nu2) if rule == "fixed" else (high, low) if certain[-1] else (low, high)
        expected.append(plain(pi, t, token, ce, *factors))
    assert 0 < sum(certain) < 8
    assert case.value().tolist() == pytest.approx(expected)


def test_cross_entropy_of_the_students_own_samples_has_no_expected_gradient():
    case = Case.random({"kind": "bd-kd", "nu1": 0, "nu2": 0}, n=1)
    chance = torch.softmax(case.student.detach(), -1)[0]
    total = torch.zeros(1, 7, dtype=torch.float64)
    for token in range(7):
        case.ids = torch.tensor([token])
        assert case.gradient().abs().max() > 0.1
        total += chance[token] * case.gradient()
    assert total.abs().max() < 1e-12


def test_a_divergence_of_factor_zero_adds_nothing_even_where_it_is_infinite():
    case = Case.random({"kind": "bd-kd", "ce": 0, "nu2": 0})
    case.teacher[:, 2] = -math.inf
    assert case.value().tolist() == pytest.approx(
        Case("fkl", case.student, case.teacher, case.reference, case.ids).value().tolist()
    )
    assert case.gradient().isfinite().all()
