import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.signals import RATIOS, Method
from tests.signals.batches import Batch

SEEDS = st.integers(0, 10_000)


def anchor(table, alpha):
    return RATIOS.resolve({"kind": "trrd", "alpha": alpha})(table)


@given(seed=SEEDS)
def test_with_all_weight_on_the_old_policy_it_is_grpo_to_the_bit(seed):
    table = Batch.random(seed).table()
    plain = Method.load("grpo").apply(table)
    mixed = Method.load({"preset": "grpo", "ratio": {"kind": "trrd", "alpha": 1}}).apply(table)
    for column in ("advantage", "anchor", "coef", "mask"):
        np.testing.assert_array_equal(getattr(mixed, column), getattr(plain, column))


@given(seed=SEEDS, alpha=st.floats(0, 1))
def test_anchor_is_the_geometric_mixture_and_linear_in_its_share(seed, alpha):
    table = Batch.random(seed).table()
    mixed = anchor(table, alpha)
    for i in np.flatnonzero(table.is_action):
        p, t = math.exp(table["logprob"][i]), math.exp(table["teacher"][i])
        assert math.exp(mixed[i]) == pytest.approx(p**alpha * t ** (1 - alpha), rel=1e-9)
    np.testing.assert_allclose(mixed, alpha * anchor(table, 1) + (1 - alpha) * anchor(table, 0), rtol=1e-12, atol=1e-15)


def test_without_any_weight_on_the_old_policy_the_ratio_is_against_the_teacher(make_table):
    table = make_table([[2]], logprob=[-1.0, -2.0], teacher=[-3.0, -4.0])
    assert anchor(table, 0).tolist() == [0, 0, -3.0, -4.0]
    assert anchor(table, 0.5).tolist() == [0, 0, -2.0, -3.0]


def test_no_advantage_gives_no_loss_and_no_gradient_and_another_one_is_multiplied_by_the_ratio(make_table):
    table = make_table([[1], [1], [1]], logprob=[-1.0] * 3, teacher=[-1.1] * 3, reward=[1, 0, 5], group=[0, 0, 1])
    method = Method.load({"preset": "grpo", "ratio": "trrd"})
    streams = method.apply(table)
    rows = np.flatnonzero(table.is_action)
    advantage, old = (torch.tensor(column[rows]) for column in (streams.advantage, streams.anchor))
    logprob = torch.tensor([-1.0, -1.0, -1.0], dtype=torch.float64, requires_grad=True)
    loss = method.surrogate(logprob, old, advantage)
    ratio = math.exp(-1.0) / (math.exp(-1.0) ** 0.5 * math.exp(-1.1) ** 0.5)
    assert loss.tolist() == pytest.approx([-float(a) * ratio for a in advantage])
    loss.sum().backward()
    assert logprob.grad[2] == 0
    assert logprob.grad[0] == pytest.approx(-float(advantage[0]) * ratio)
