"""What holds for every registered divergence, under each of its forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdistill.signals import DIVERGENCES
from tests.signals.distributions import INF, Case


def topk(kind, support, tail, k=3):
    return {"kind": kind, "support": support, "k": k, "tail": tail}


# Of full distributions; each is 0 where the two agree.
DISTANCES = [
    "rkl", "fkl", "jsd", {"kind": "jsd", "beta": 0.3}, "tvd", "skew-rkl", "skew-fkl", "logit-std", "eakl",
    {"kind": "fkl", "temperature": 2.0}, {"kind": "jsd", "temperature": 0.7},
    topk("rkl", "student", "renormalise"), topk("rkl", "teacher", "bucket"),
    topk("fkl", "teacher", "renormalise"), topk("fkl", "student", "bucket"),
    topk("jsd", "student", "bucket"), topk("jsd", "teacher", "renormalise"),
    {"kind": "opsd", "clip": 1.2}, {"kind": "opsd", "divergence": "jsd", "clip": 0.25},
    "opsd-element-clip", {"kind": "opsd-element-clip", "divergence": "jsd", "clip": 0.02},
    {"kind": "bd-kd", "ce": 0, "nu1": 0.7}, {"kind": "bd-kd", "ce": 0, "nu1": 2.0, "rule": "entropy-gap"},
    {"kind": "eakl", "k": 3},
]  # fmt: skip
# Losses that need not be 0 anywhere.
LOSSES = [
    "bd-kd", "pld", {"kind": "pld", "k": 3, "tail": "bucket"}, {"kind": "pld", "k": 3, "tail": "renormalise"},
    "adpa", {"kind": "adpa", "anchor": 0.5}, {"kind": "adpa", "anchor": 1.0}, "dckd", {"kind": "dckd", "sft": 0, "alpha": 2.0},
]  # fmt: skip
# Tokens of these are not independent of each other.
COUPLED = ["sinkd", {"kind": "sinkd", "fkl": 1.0, "rows": 3}, {"kind": "eakl", "rows": 2}]
SAMPLED = ["k1", "k2", "k3", "abs"]
IMITATION = ["sft"]
FULL = [*DISTANCES, *LOSSES, *COUPLED]
ALL = [*FULL, *SAMPLED, *IMITATION]


def name(spec):
    return spec if isinstance(spec, str) else "-".join(str(value) for value in spec.values())


def over(specs):
    return pytest.mark.parametrize("spec", specs, ids=name)


def test_every_built_in_divergence_is_held_by_this_file():
    built_in = {n for n in DIVERGENCES.names() if DIVERGENCES.resolve(n).function.__module__.startswith("agentdistill.")}
    assert built_in == {"none", *(spec if isinstance(spec, str) else spec["kind"] for spec in ALL)}


@over(ALL)
def test_gradient_equals_finite_differences(spec):
    case = Case.random(spec, seed=3)

    def value(student):
        return Case(spec, student, case.teacher, case.reference, case.ids).value()

    assert torch.autograd.gradcheck(value, (case.student,))


@over([*DISTANCES, *SAMPLED])
def test_equal_distributions_give_zero(spec):
    case = Case.random(spec)
    case.teacher = case.student.detach()
    assert case.value().abs().max() < 1e-12


@over([*(s for s in DISTANCES if "element" not in name(s)), "k2", "k3"])
def test_equal_distributions_give_no_gradient(spec):
    case = Case.random(spec)
    case.teacher = case.student.detach()
    assert case.gradient().abs().max() < 1e-12


@over(ALL)
def test_no_gradient_reaches_teacher_or_reference(spec):
    case = Case.random(spec)
    case.teacher.requires_grad_()
    case.reference.requires_grad_()
    case.value().sum().backward()
    assert case.student.grad.abs().max() > 1e-3
    assert case.teacher.grad is None
    assert case.reference.grad is None


@over(FULL)
@pytest.mark.parametrize("where", ["student", "teacher", "reference", "both", "all"])
@pytest.mark.parametrize("rank", ["most", "least"])
def test_impossible_tokens_make_no_nan_in_value_or_gradient(spec, where, rank):
    case = Case.random(spec, n=3, size=6)
    sides = {"both": ("student", "teacher"), "all": ("student", "teacher", "reference")}.get(where, (where,))
    ids = (case.teacher if rank == "most" else -case.teacher).topk(2, -1).indices
    for side in sides:
        logits = getattr(case, side).detach().clone()
        logits[:2] = logits[:2].scatter(-1, ids[:2], -INF)  # the last row stays as it was
        setattr(case, side, logits.requires_grad_(side == "student"))
    case.ids = case.student.argmax(-1)
    value = case.value()
    assert not value.isnan().any()
    assert value[2].isfinite()
    with torch.autograd.set_detect_anomaly(True):  # a NaN inside the backward pass counts, even if masked later
        value.sum().backward()
    assert case.student.grad.isfinite().all()


@over([s for s in FULL if s not in ("logit-std", "eakl", {"kind": "eakl", "rows": 2})])  # those count the possible ids
def test_impossible_tokens_are_the_limit_of_improbable_ones(spec):
    def value(logit):
        case = Case.random(spec, n=4, size=6, seed=5)
        logits = [case.student.detach().clone(), case.teacher, case.reference]
        for row, sides in enumerate([(0, 1, 2), (0,), (1,), (2,)]):
            for side in sides:
                logits[side][row, 2] = logit
        return Case(spec, *logits, case.ids.fill_(0)).value()

    at, near, far = value(-INF), value(-60.0), value(-120.0)
    finite = at.isfinite()
    assert finite.any()
    torch.testing.assert_close(at[finite], near[finite], rtol=0, atol=1e-9)
    assert ((far - near)[~finite] * at[~finite].sign() > 0.05).all()


@over(ALL)
def test_no_token_gives_an_empty_loss_that_can_be_differentiated(spec):
    case = Case.random(spec, n=0)
    assert case.value().shape == (0,)
    assert case.gradient().shape == (0, 7)


@over(ALL)
def test_half_precision_is_computed_in_float32_and_float64_stays(spec):
    case = Case.random(spec)
    rough = [d.detach().bfloat16() if d.is_floating_point() else d for d in case.data()]
    value = case.choice(*rough)
    assert value.dtype == torch.float32
    exact = case.choice(*(d.double() if d.is_floating_point() else d for d in rough))
    torch.testing.assert_close(value.double(), exact, rtol=2e-5, atol=2e-6)
    assert exact.dtype == torch.float64


@over(FULL)
@settings(max_examples=8)
@given(seed=st.integers(0, 1000))
def test_numbering_of_the_vocabulary_does_not_matter(spec, seed):
    case = Case.random(spec, seed=seed)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    sides = (case.student, case.teacher, case.reference)
    other = Case(spec, *(side[:, order] for side in sides), order.argsort()[case.ids])
    torch.testing.assert_close(other.value(), case.value(), rtol=1e-9, atol=1e-12)


@over(FULL)
@settings(max_examples=8)
@given(seed=st.integers(0, 1000), width=st.integers(1, 4))
def test_ids_of_probability_zero_change_nothing(spec, seed, width):
    case = Case.random(spec, seed=seed)

    def wide(side):
        return torch.nn.functional.pad(side, (0, width), value=-INF)

    padded = Case(spec, wide(case.student), wide(case.teacher), wide(case.reference), case.ids)
    torch.testing.assert_close(padded.value(), case.value(), rtol=1e-9, atol=1e-12)
    gradient = torch.autograd.grad(padded.value().sum(), case.student)[0]
    torch.testing.assert_close(gradient, case.gradient(), rtol=1e-9, atol=1e-12)


@over([*DISTANCES, *LOSSES, *SAMPLED, *IMITATION])
@settings(max_examples=8)
@given(seed=st.integers(0, 1000))
def test_a_token_does_not_depend_on_its_neighbours(spec, seed):
    case = Case.random(spec, seed=seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))[: 1 + seed % 5]
    some = Case(spec, *(side[order] for side in (case.student, case.teacher, case.reference, case.ids)))
    torch.testing.assert_close(some.value(), case.value()[order], rtol=1e-12, atol=1e-14)
