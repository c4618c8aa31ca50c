"""Importance weights: the gradient that the student's own samples would have given, from somebody else's."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.errors import UserError
from agentdistill.signals import IMPORTANCE, Method
from tests.signals.batches import Batch
from tests.signals.worlds import World, assert_same, kl, policy_gradient

UNBOUNDED = {"preset": "opd", "signal": "lightning", "importance": {"kind": "truncated", "cap": 1e9}}


def drifted():
    """A student, on rollouts of a sampler that is warmer and partly another model."""
    world = World.random()
    return replace(world, sampler=torch.log_softmax((0.3 * world.reference + world.student.detach()) / 1.5, -1))


def test_without_a_cap_that_acts_the_expected_gradient_is_that_of_the_students_own_samples(make_table):
    world = drifted()
    exact = world.gradient(world.expected(kl(world.student, world.teacher)))
    assert_same(policy_gradient(world, make_table, UNBOUNDED), exact)
    plain = policy_gradient(world, make_table, {"preset": "opd", "signal": "lightning"})
    assert not torch.allclose(plain, exact, rtol=0.05)


@given(seed=st.integers(0, 10_000), cap=st.floats(1, 5))
def test_weight_is_the_ratio_of_the_two_policies_up_to_the_cap(seed, cap):
    table = Batch.random(seed).table()
    found = IMPORTANCE.resolve({"kind": "truncated", "cap": cap})(table)
    for i in range(len(table)):
        ours, theirs = (float(table[name][i]) for name in ("recomputed", "behaviour"))
        expected = min(math.exp(ours) / math.exp(theirs), cap) if table.is_action[i] else 0.0
        assert found[i] == pytest.approx(expected, rel=1e-9)


def test_it_multiplies_both_terms_and_nothing_else():
    table = Batch.random(3).table()
    plain = Method.load("sod").apply(table)
    weighed = Method.load({"preset": "sod", "importance": "truncated"}).apply(table)
    weight = IMPORTANCE.resolve("truncated")(table)
    assert len(set(weight[table.is_action])) > 3
    np.testing.assert_allclose(weighed.advantage, weight * plain.advantage, rtol=1e-12)
    np.testing.assert_allclose(weighed.silent.advantage, weight * plain.silent.advantage, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(weighed.kd_weight, weight * plain.kd_weight, rtol=1e-12)
    for column in ("coef", "mask", "anchor", "step_weight", "gate"):
        np.testing.assert_array_equal(getattr(weighed, column), getattr(plain, column))


def test_of_the_students_own_samples_every_weight_is_one():
    table = Batch.random(5).table()
    own = table.with_column("behaviour", table["recomputed"])
    plain, weighed = (Method.load({"preset": "sod", "importance": kind}).apply(own) for kind in ("none", "truncated"))
    np.testing.assert_array_equal(plain.advantage, weighed.advantage)


def test_log_ratios_are_bounded_before_the_exponential(make_table):
    table = make_table([[2]], recomputed=[0.0, -1e4], behaviour=[-1e4, 0.0])
    weight = IMPORTANCE.resolve({"kind": "truncated", "cap": 1e30})(table)[table.is_action]
    assert weight.tolist() == pytest.approx([math.exp(20), math.exp(-20)])
    with pytest.raises(UserError, match="'cap' must be at least 1"):
        IMPORTANCE.resolve({"kind": "truncated", "cap": 0.5})
