import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.errors import UserError
from agentdistill.signals import GATES, Method, TokenTable
from tests.signals.batches import Batch


def gate(table, **settings):
    return GATES.resolve({"kind": "gated", **settings})(table)


@pytest.mark.parametrize("unit", ["trajectory", "step", "token"])
@given(seed=st.integers(0, 10_000), delta=st.sampled_from([0.0, 0.5, 2.0]))
def test_gate_equals_a_plain_loop_over_the_units(unit, seed, delta):
    table = Batch.random(seed).table()
    values = gate(table, unit=unit, delta=delta, agree=1.8, conflict=0.25)
    where = {"trajectory": table.trajectory, "step": table.trajectory * 99 + table.step, "token": np.arange(len(table))}[unit]
    for i in range(len(table)):
        mine = [j for j in range(len(table)) if where[j] == where[i] and table.is_action[j]]
        gap = sum(float(table["teacher"][j] - table["logprob"][j]) for j in mine)
        right = table["reward"][i] > 0
        sided = (right and gap > delta) or (not right and gap < -delta)
        assert values[i] == (0.0 if not table.is_action[i] else 1.8 if sided else 0.25)


def test_the_four_cases_of_outcome_and_preference(make_table):
    table = make_table([[1]] * 4, logprob=[-1.0] * 4, teacher=[-0.5, -2.0, -0.5, -2.0], reward=[1, 1, 0, 0])
    assert gate(table)[table.is_action].tolist() == [1, 0, 0, 1]
    assert GATES.resolve("gated").params["unit"] == "trajectory"


def test_a_preference_of_exactly_delta_is_none(make_table):
    table = make_table([[1]] * 4, logprob=[-1.0] * 4, teacher=[-1.0, -1.0, -0.5, -1.5], reward=[1, 0, 1, 0])
    assert gate(table)[table.is_action].tolist() == [0, 0, 1, 1]
    assert gate(table, delta=0.5)[table.is_action].tolist() == [0, 0, 0, 0]


def test_success_is_a_reward_above_the_threshold(make_table):
    table = make_table([[1]] * 3, logprob=[-1.0] * 3, teacher=[-0.5] * 3, reward=[0.2, 0.5, 0.9])
    assert gate(table, threshold=0.5)[table.is_action].tolist() == [0, 0, 1]


def test_a_long_trajectory_is_weighed_by_its_sum_and_a_step_by_its_own(make_table):
    table = make_table([[2, 1]], logprob=[-1.0] * 3, teacher=[-0.5, -0.8, -3.0], reward=[1])
    assert gate(table)[table.is_action].tolist() == [0, 0, 0]  # 0.5 + 0.2 − 2
    assert gate(table, unit="step")[table.is_action].tolist() == [1, 1, 0]
    assert gate(table, unit="step", delta=0.6)[table.is_action].tolist() == [1, 1, 0]  # a sum of 0.7, not a mean of 0.35


def test_the_gate_opens_and_shuts_the_distillation_term_only():
    table = Batch.random(5).table()
    gated = Method.load({"preset": "sod", "step_weight": "none", "gate": "gated"}).apply(table)
    opd, grpo = Method.load("opd").apply(table), Method.load("grpo").apply(table)
    np.testing.assert_allclose(gated.advantage, gate(table) * opd.advantage + grpo.advantage, rtol=1e-12, atol=1e-15)
    assert 0 < gate(table)[table.is_action].mean() < 1


def test_missing_step_ids_are_an_error_where_steps_are_weighed():
    rows = {"trajectory": [0, 0], "turn": [0, 0], "step": [0, -1], "is_action": [True, True]}
    table = TokenTable({**rows, "logprob": [-1.0, -1.0], "teacher": [-2.0, -2.0], "reward": [1.0, 1.0]})
    assert gate(table).tolist() == [0, 0]
    with pytest.raises(UserError, match=r"row 1 .* has no step id"):
        gate(table, unit="step")


@given(seed=st.integers(0, 10_000), scale=st.floats(0, 5))
def test_sigmoid_opens_where_the_teacher_would_say_the_token_sooner(seed, scale):
    table = Batch.random(seed).table()
    values = GATES.resolve({"kind": "sigmoid", "scale": scale})(table)
    assert (values[~table.is_action] == 0).all()
    for i in np.flatnonzero(table.is_action):
        gap = float(table["teacher"][i] - table["logprob"][i])
        assert values[i] == pytest.approx(1 / (1 + math.exp(-scale * gap)))


def test_sigmoid_of_any_size_of_gap_stays_between_nothing_and_all(make_table):
    table = make_table([[3]], logprob=[-1e4, -1.0, 0.0], teacher=[0.0, -1.0, -1e4])
    with np.errstate(over="raise", invalid="raise"):
        assert GATES.resolve("sigmoid")(table)[table.is_action].tolist() == [1.0, 0.5, 0.0]
