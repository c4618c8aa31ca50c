import math

import pytest
import torch
from torch import Tensor

from agentdistill.signals import DIVERGENCES
from tests.signals.distributions import Case

KINDS = ["fkl", "jsd"]


def spec(name, kind, clip, **more):
    return {"kind": name, "divergence": kind, "clip": clip, **more}


def elements(kind, pi, t, beta=0.5, tau=1.0):
    """The summands of one row, from plain probabilities."""
    pi, t = ([p ** (1 / tau) / sum(q ** (1 / tau) for q in side) for p in side] for side in (pi, t))
    if kind == "fkl":
        return [b * math.log(b / a) for a, b in zip(pi, t, strict=True)]
    mixture = [beta * b + (1 - beta) * a for a, b in zip(pi, t, strict=True)]
    return [beta * b * math.log(b / m) + (1 - beta) * a * math.log(a / m) for a, b, m in zip(pi, t, mixture, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("beta", "tau"), [(0.5, 1.0), (0.2, 1.0), (0.7, 1.7)])
def test_values_equal_the_plain_definitions(kind, beta, tau):
    for clip in (0.02, 0.2, 1.0):
        names = ("opsd", "opsd-element-clip")
        token, element = (Case.random(spec(name, kind, clip, beta=beta, temperature=tau)) for name in names)
        sides = (side.exp().tolist() for side in token.data())
        rows = [elements(kind, *pair, beta, tau) for pair in zip(*sides, strict=True)]
        assert token.value().tolist() == pytest.approx([min(sum(row), clip) for row in rows])
        assert element.value().tolist() == pytest.approx([sum(min(d, clip) for d in row) for row in rows])


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_under_the_clip_has_its_whole_gradient_and_one_above_has_none(kind):
    case = Case.random(kind)
    value, gradient = case.value().detach(), case.gradient()
    clip = float(value.median()) + 1e-6
    case.spec = spec("opsd", kind, clip)
    expected = torch.where((value < clip)[:, None], gradient, 0.0)
    assert 0 < (value < clip).sum() < len(value)
    torch.testing.assert_close(case.gradient(), expected, rtol=1e-12, atol=1e-15)


def test_without_a_clip_it_is_its_divergence_and_a_clip_bounds_an_infinite_one():
    case = Case.random({"kind": "opsd", "temperature": 1.5})
    assert torch.equal(case.value(), Case.random({"kind": "fkl", "temperature": 1.5}).value())
    with torch.no_grad():
        case.student[:, 0] = -math.inf
    assert case.value().tolist() == [math.inf] * 5
    case.spec = spec("opsd", "fkl", 2.0)
    assert case.value().tolist() == [2.0] * 5
    assert case.gradient().abs().max() == 0


def cosine(clip: float) -> float:
    """Between the gradients of the element clip and of the true forward KL, over 40 tokens on which the two sides are close."""
    case = Case.random(spec("opsd-element-clip", "fkl", clip), n=40, size=1000)
    case.teacher = 1.1 * case.student.detach() + 0.6 * case.teacher
    clipped = case.gradient().flatten()
    case.spec = "fkl"
    return float(torch.nn.functional.cosine_similarity(case.gradient().flatten(), clipped, dim=0))


def test_element_clip_turns_the_gradient_away_as_it_gets_tighter_until_it_teaches_the_opposite():
    cosines = [cosine(clip) for clip in (1e6, 0.05, 0.01, 1e-6)]
    assert cosines[0] == pytest.approx(1.0)
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[1] < 0.5
    assert cosines[3] < -0.4


def test_element_clip_takes_the_pull_from_the_ids_that_the_teacher_wants_more_of():
    case = Case.random(spec("opsd-element-clip", "fkl", 0.01))
    student, teacher = (side.exp() for side in case.data())
    clipped = teacher * (teacher / student).log() > 0.01
    assert clipped.any(-1).all()
    assert (teacher > student)[clipped].all()
    kept: Tensor = teacher.where(~clipped, 0.0)
    torch.testing.assert_close(case.gradient(), (student * kept.sum(-1, keepdim=True) - kept).detach())


def test_element_clip_can_be_negative_where_no_divergence_is():
    assert Case.random(spec("opsd-element-clip", "fkl", 1e-6)).value().max() < 0


def test_published_clip_is_the_default_of_the_element_form():
    assert DIVERGENCES.resolve("opsd-element-clip").params["clip"] == 0.05
