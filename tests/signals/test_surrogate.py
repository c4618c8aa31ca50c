import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.signals.surrogate import clips, ppo


def scalar(ratio, advantage, low, high, dual):
    """Dual-clip PPO by cases: which branch applies, and the loss it gives."""
    bounded = min(max(ratio, 1 - low), 1 + high)
    if advantage >= 0:
        return -min(ratio * advantage, bounded * advantage)
    objective = min(ratio * advantage, bounded * advantage)
    return -(objective if dual is None else max(objective, dual * advantage))


@given(
    log_ratio=st.floats(-3, 3),
    advantage=st.floats(-5, 5),
    low=st.floats(0.05, 0.5),
    high=st.floats(0.05, 0.5),
    dual=st.one_of(st.none(), st.floats(1.6, 5)),
)
def test_loss_equals_a_plain_scalar_implementation(log_ratio, advantage, low, high, dual):
    new, old, a = (torch.tensor([x], dtype=torch.float64) for x in (log_ratio - 1, -1.0, advantage))
    loss = ppo(new, old, a, clip_low=low, clip_high=high, dual_clip=dual).item()
    assert loss == pytest.approx(scalar(math.exp(log_ratio), advantage, low, high, dual), rel=1e-9, abs=1e-12)


CASES = [  # ratio, advantage, loss, clipped
    (1.0, 2.0, -2.0, False),
    (1.27, 1.0, -1.27, False),
    (1.5, 1.0, -1.28, True),
    (0.5, 1.0, -0.5, False),
    (0.5, -1.0, 0.8, True),
    (0.9, -1.0, 0.9, False),
    (2.0, -1.0, 2.0, False),
    (5.0, -1.0, 3.0, True),
    (5.0, 0.0, 0.0, False),
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "is_clipped"), CASES)
def test_clipped_marks_exactly_the_tokens_without_gradient(ratio, advantage, loss, is_clipped):
    old = torch.tensor([-2.0], dtype=torch.float64)
    new = (old + math.log(ratio)).requires_grad_()
    a = torch.tensor([advantage], dtype=torch.float64)
    value = ppo(new, old, a)
    value.sum().backward()
    assert value.item() == pytest.approx(loss)
    assert clips(new, old, a).any().item() is is_clipped
    expected = 0.0 if is_clipped else -advantage * ratio
    assert new.grad.item() == pytest.approx(expected)


def test_without_dual_clip_a_risen_bad_token_is_unbounded():
    new, old, a = torch.tensor([0.0]), torch.tensor([-5.0]), torch.tensor([-1.0])
    assert ppo(new, old, a, dual_clip=None).item() == pytest.approx(math.exp(5))
    assert not clips(new, old, a, dual_clip=None).any()


def test_extreme_log_ratios_stay_finite():
    new, old = torch.tensor([0.0, -1e4]), torch.tensor([-1e4, 0.0])
    assert torch.isfinite(ppo(new, old, torch.tensor([-1.0, 1.0]), dual_clip=None)).all()


def test_no_gradient_reaches_advantage_or_old_logprob():
    new, old, a = (torch.tensor([x], requires_grad=True) for x in (-1.0, -1.1, 0.5))
    ppo(new, old, a).sum().backward()
    assert old.grad is None
    assert a.grad is None
    assert new.grad.item() != 0


def test_clips_tell_the_lower_the_upper_and_the_dual_clip_apart():
    ratio, advantage = torch.tensor([0.5, 1.5, 4.0, 1.0]), torch.tensor([-1.0, 1.0, -1.0, 1.0])
    assert clips(ratio.log(), torch.zeros(4), advantage).tolist() == [
        [True, False, False, False],
        [False, True, False, False],
        [False, False, True, False],
    ]
