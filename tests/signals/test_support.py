import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agentdistill.errors import UserError
from agentdistill.signals import DIVERGENCES
from tests.signals.distributions import INF, Case, logits

KINDS = ["rkl", "fkl", "jsd"]
TAILS = ["renormalise", "bucket"]


def spec(kind, support, tail, k):
    return {"kind": kind, "support": support, "tail": tail, "k": k}


def plain(kind, pi, t, chooser, tail, k):
    """The definition on two lists of probabilities."""
    kept = sorted(range(len(pi)), key=lambda v: -chooser[v])[:k]

    def part(p):
        inside = [p[v] for v in kept]
        return [q / sum(inside) for q in inside] if tail == "renormalise" else [*inside, 1 - sum(inside)]

    def kl(p, q):
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

    pi, t = part(pi), part(t)
    mixture = [(a + b) / 2 for a, b in zip(pi, t, strict=True)]
    return {"rkl": kl(pi, t), "fkl": kl(t, pi), "jsd": (kl(pi, mixture) + kl(t, mixture)) / 2}[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("support", ["student", "teacher"])
@pytest.mark.parametrize("tail", TAILS)
@settings(max_examples=10)
@given(seed=st.integers(0, 1000), k=st.integers(1, 6))
def test_value_equals_the_plain_definition(kind, support, tail, seed, k):
    assume(k > 1 or tail == "bucket")
    case = Case.random(spec(kind, support, tail, k), n=2, seed=seed)
    ours, theirs = (side.exp().tolist() for side in case.data())
    expected = [plain(kind, pi, t, pi if support == "student" else t, tail, k) for pi, t in zip(ours, theirs, strict=True)]
    assert case.value().tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("k", [7, 8, 100])
def test_the_whole_vocabulary_as_support_equals_full_exactly(kind, tail, k):
    case = Case.random(kind)
    full, gradient = case.value(), case.gradient()
    case.spec = spec(kind, "student", tail, k)
    assert torch.equal(case.value(), full)
    assert torch.equal(case.gradient(), gradient)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tail", TAILS)
def test_all_ids_that_anyone_may_say_as_support_equal_full(kind, tail):
    case = Case.random(kind, size=9)
    dead = torch.tensor([0.0] * 7 + [-INF] * 2)
    case.student, case.teacher = (case.student.detach() + dead).requires_grad_(), case.teacher + dead
    full, gradient = case.value(), case.gradient()
    case.spec = spec(kind, "teacher", tail, 7)
    torch.testing.assert_close(case.value(), full, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(case.gradient(), gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(seed=st.integers(0, 1000), k=st.integers(1, 5))
def test_a_bucket_never_sees_more_than_more_places_do(kind, seed, k):
    less, more = (Case.random(spec(kind, "teacher", "bucket", size), seed=seed).value() for size in (k, k + 1))
    assert (less <= more + 1e-12).all()
    assert (more <= Case.random(kind, seed=seed).value() + 1e-12).all()


def test_renormalising_is_blind_to_mass_that_leaves_the_support_and_the_bucket_is_not():
    teacher = torch.tensor([[0.6, 0.3, 0.05, 0.05]], dtype=torch.float64).log()
    leaking = torch.tensor([[0.2, 0.1, 0.35, 0.35]], dtype=torch.float64).log()  # same shape on the teacher's two ids
    value = {tail: DIVERGENCES.resolve(spec("rkl", "teacher", tail, 2))(leaking, teacher).item() for tail in TAILS}
    assert value["renormalise"] == pytest.approx(0, abs=1e-12)
    assert value["bucket"] == pytest.approx(0.3 * math.log(1 / 3) + 0.7 * math.log(7))


@pytest.mark.parametrize("tail", TAILS)
def test_a_side_without_mass_on_the_support_is_an_infinite_kl_not_a_nan(tail):
    teacher = torch.log_softmax(torch.tensor([[0.0, 1.0, -INF, -INF]], dtype=torch.float64), -1)
    raw = torch.tensor([[-INF, -INF, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    value = DIVERGENCES.resolve(spec("fkl", "teacher", tail, 2))(torch.log_softmax(raw, -1), teacher)
    assert value.item() == INF
    value.sum().backward()
    assert raw.grad.isfinite().all()


def test_which_ids_are_kept_carries_no_gradient_but_their_mass_does():
    case = Case.random(spec("rkl", "student", "bucket", 2), n=1)
    outside = case.student.detach().argsort(descending=True)[0, 2:]
    share = torch.softmax(case.student.detach()[0, outside], -1)
    torch.testing.assert_close(case.gradient()[0, outside] / case.gradient()[0, outside].sum(), share)  # one bucket, one pull


def test_float32_tails_are_summed_and_not_taken_as_what_is_missing_to_one():
    teacher = torch.log_softmax(torch.cat([torch.full((1, 1), 30.0), logits(1, 6, 0).float()], -1), -1)
    student = torch.log_softmax(logits(1, 7, 1).float(), -1)
    value = DIVERGENCES.resolve(spec("rkl", "teacher", "bucket", 1))
    torch.testing.assert_close(value(student, teacher).double(), value(student.double(), teacher.double()), rtol=1e-5, atol=0)


def test_a_size_without_a_support_and_a_support_without_a_size_are_refused_when_read():
    with pytest.raises(UserError, match=r"divergence 'rkl': k = 50 needs 'support'"):
        DIVERGENCES.resolve({"kind": "rkl", "k": 50})
    with pytest.raises(UserError, match=r"divergence 'jsd': support 'teacher' needs 'k'"):
        DIVERGENCES.resolve({"kind": "jsd", "support": "teacher"})
    with pytest.raises(UserError, match=r"'k' must be at least 1"):
        DIVERGENCES.resolve({"kind": "rkl", "support": "student", "k": 0})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("support", ["student", "teacher"])
def test_one_renormalised_id_compares_nothing_and_is_refused(kind, support):
    with pytest.raises(UserError, match="k = 1 with tail 'renormalise' leaves one id of probability 1 on both sides"):
        DIVERGENCES.resolve(spec(kind, support, "renormalise", 1))
    DIVERGENCES.resolve(spec(kind, support, "bucket", 1))
