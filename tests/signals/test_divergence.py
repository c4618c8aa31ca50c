import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.errors import UserError
from agentdistill.signals import DIVERGENCES

INF = float("inf")
KINDS = ["rkl", "fkl", {"kind": "jsd", "beta": 0.3}, "jsd", "tvd", "skew-rkl", "skew-fkl"]
logits = st.lists(st.floats(-8, 8), min_size=4, max_size=4)


def plain(kind, pi, t):
    """The definition, entry by entry, on two lists of probabilities."""

    def kl(p, q):
        return sum(a * math.log(a / b) if b > 0 else INF for a, b in zip(p, q, strict=True) if a > 0)

    def mix(weight):
        return [weight * b + (1 - weight) * a for a, b in zip(pi, t, strict=True)]

    name, beta = (kind["kind"], kind["beta"]) if isinstance(kind, dict) else (kind, 0.5)
    return {
        "rkl": lambda: kl(pi, t),
        "fkl": lambda: kl(t, pi),
        "jsd": lambda: beta * kl(t, mix(beta)) + (1 - beta) * kl(pi, mix(beta)),
        "tvd": lambda: sum(abs(a - b) for a, b in zip(pi, t, strict=True)) / 2,
        "skew-rkl": lambda: kl(pi, mix(0.9)),
        "skew-fkl": lambda: kl(t, mix(0.1)),
    }[name]()


def logp(values, dtype=torch.float64):
    return torch.log_softmax(torch.tensor([values], dtype=dtype), -1)


@pytest.mark.parametrize("kind", KINDS)
@given(s=logits, t=logits)
def test_value_equals_the_plain_definition(kind, s, t):
    student, teacher = logp(s), logp(t)
    expected = plain(kind, student.exp()[0].tolist(), teacher.exp()[0].tolist())
    assert DIVERGENCES.resolve(kind)(student, teacher).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", ["rkl", "fkl", "jsd"])
@given(s=logits, t=logits, temperature=st.floats(0.3, 4))
def test_temperature_divides_both_logits_and_puts_no_factor_in_front(kind, s, t, temperature):
    def softmax(values):
        powers = [math.exp(value / temperature) for value in values]
        return [power / sum(powers) for power in powers]

    value = DIVERGENCES.resolve({"kind": kind, "temperature": temperature})(logp(s), logp(t)).item()
    assert value == pytest.approx(plain(kind, softmax(s), softmax(t)), rel=1e-9, abs=1e-12)


@given(s=logits, t=logits, beta=st.floats(0.01, 0.99))
def test_jsd_is_symmetric_under_exchange_of_roles_and_beta(s, t, beta):
    forward = DIVERGENCES.resolve({"kind": "jsd", "beta": beta})(logp(s), logp(t))
    backward = DIVERGENCES.resolve({"kind": "jsd", "beta": 1 - beta})(logp(t), logp(s))
    assert forward.item() == pytest.approx(backward.item(), abs=1e-12)


@given(s=logits, t=logits)
def test_bounded_divergences_keep_their_bounds(s, t):
    student, teacher = logp(s), logp(t)
    jsd, tvd, *skew = (DIVERGENCES.resolve(k)(student, teacher).item() for k in ("jsd", "tvd", "skew-rkl", "skew-fkl"))
    assert -1e-12 <= jsd <= math.log(2) + 1e-12
    assert -1e-12 <= tvd <= 1 + 1e-12
    assert all(-1e-12 <= value <= -math.log(0.1) + 1e-12 for value in skew)


@given(s=logits, t=logits)
def test_skew_forms_are_each_other_with_the_roles_exchanged(s, t):
    reverse = DIVERGENCES.resolve("skew-rkl")(logp(s), logp(t)).item()
    assert DIVERGENCES.resolve("skew-fkl")(logp(t), logp(s)).item() == pytest.approx(reverse, abs=1e-12)


def test_jsd_ends_are_the_two_kls_and_are_not_approached_continuously():
    student, teacher = logp([2, 0, -1, 0]), logp([0, 1, 0, 3])
    jsd = {beta: DIVERGENCES.resolve({"kind": "jsd", "beta": beta})(student, teacher).item() for beta in (0, 1e-3, 1)}
    assert jsd[0] == DIVERGENCES.resolve("fkl")(student, teacher).item()
    assert jsd[1] == DIVERGENCES.resolve("rkl")(student, teacher).item()
    assert jsd[1e-3] < 0.01 * jsd[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dead", ["student", "teacher", "both"])
def test_impossible_tokens_add_their_limit(kind, dead):
    s, t = [1.0, 0.5, -1.0, 0.3], [0.2, 1.5, 0.0, 0.1]
    if dead in {"student", "both"}:
        s[1] = -INF
    if dead in {"teacher", "both"}:
        t[1] = -INF
    student, teacher = logp(s), logp(t)
    expected = plain(kind, student.exp()[0].tolist(), teacher.exp()[0].tolist())
    assert DIVERGENCES.resolve(kind)(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_none_is_zero_everywhere():
    assert DIVERGENCES.resolve("none")(logp([1, 2, 3, 4]), logp([1, 1, 1, 1])).tolist() == [0.0]


def test_settings_out_of_range_are_refused():
    with pytest.raises(UserError, match=r"'beta' must be at most 1, not 1\.5"):
        DIVERGENCES.resolve({"kind": "jsd", "beta": 1.5})
    with pytest.raises(UserError, match=r"'temperature' must be greater than 0"):
        DIVERGENCES.resolve({"kind": "fkl", "temperature": 0})


F = {
    "fkl": lambda u: u * math.log(u),
    "rkl": lambda u: -math.log(u),
    "jsd": lambda u: (u * math.log(2 * u / (u + 1)) + math.log(2 / (u + 1))) / 2,
    "tvd": lambda u: abs(u - 1) / 2,
}


@pytest.mark.parametrize("kind", F)
@given(s=logits, t=logits)
def test_each_is_the_mean_of_its_f_of_the_ratio_under_the_student(kind, s, t):
    student, teacher = logp(s), logp(t)
    pairs = zip(student.exp()[0].tolist(), teacher.exp()[0].tolist(), strict=True)
    expected = sum(p * F[kind](q / p) for p, q in pairs)
    assert DIVERGENCES.resolve(kind)(student, teacher).item() == pytest.approx(expected, rel=1e-7, abs=1e-9)
