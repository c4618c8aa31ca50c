import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.errors import UserError
from agentdistill.signals import RL_TERMS

KINDS = ["grpo", "dr-grpo", "rloo"]


def advantage(make_table, reward, group, kind="grpo"):
    table = make_table([[1]] * len(reward), reward=reward, group=group)
    return RL_TERMS.resolve(kind)(table)[table.is_action]


NASTY = [(-1.1, 10), (1.3, 10), (0.1, 3), (1e8 + 0.1, 7)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("reward", "size"), NASTY)
def test_equal_rewards_give_exactly_zero_advantage(make_table, kind, reward, size):
    assert (advantage(make_table, [reward] * size, [0] * size, kind) == 0.0).all()


@pytest.mark.parametrize(("reward", "size"), NASTY)
def test_plain_formula_in_float32_or_float64_fails_on_the_equal_rewards_above(reward, size):
    off = []
    for dtype in (np.float32, np.float64):
        rewards = np.full(size, reward, dtype=dtype)
        off.append(np.abs((rewards - rewards.sum() / size) / (rewards.std(ddof=1) + 1e-6)).max())
    assert max(off) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_group_of_one_gives_zero_and_not_the_raw_reward(make_table, kind):
    assert advantage(make_table, [5.0, 1.0, 2.0], [7, 3, 3], kind)[0] == 0.0


def one(kind, reward, others):
    """The definition, for one episode of a group."""
    group = [reward, *others]
    if kind == "rloo":
        return reward - statistics.fmean(others) if others else 0.0
    centred = reward - statistics.fmean(group)
    if kind == "dr-grpo":
        return centred
    return 0.0 if len(set(group)) == 1 else centred / (statistics.stdev(group) + 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.lists(st.tuples(st.integers(0, 3), st.integers(-9, 9)), min_size=1, max_size=12))
def test_advantage_equals_a_plain_loop_over_interleaved_groups(make_table, kind, data):
    group, reward = [g for g, _ in data], [float(r) for _, r in data]
    expected = []
    for i, (g, r) in enumerate(data):
        others = [float(x) for j, (h, x) in enumerate(data) if h == g and j != i]
        expected.append(one(kind, float(r), others))
    np.testing.assert_allclose(advantage(make_table, reward, group, kind), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("kind", "power"), [("grpo", 0), ("dr-grpo", 1), ("rloo", 1)])
def test_shifted_rewards_change_nothing_and_scaled_ones_only_what_is_not_standardised(make_table, kind, power):
    reward, group = [1.0, 4.0, 2.0, 9.0], [0, 0, 0, 1]
    plain = advantage(make_table, reward, group, kind)
    other = advantage(make_table, [3 * r + 7 for r in reward], group, kind)
    assert plain[0] < 0 < plain[1]
    np.testing.assert_allclose(other, 3**power * plain, rtol=1e-5)


def test_advantage_is_broadcast_to_student_tokens_only(make_table):
    table = make_table([[2, 1], [1]], reward=[1.0, 0.0], group=[0, 0])
    values = RL_TERMS.resolve("grpo")(table)
    assert (values[~table.is_action] == 0).all()
    np.testing.assert_allclose(values[table.is_action], np.array([1, 1, 1, -1]) * np.sqrt(0.5), rtol=1e-5)


def test_missing_group_and_nan_reward_are_errors(make_table):
    with pytest.raises(UserError, match="no column 'group'"):
        RL_TERMS.resolve("grpo")(make_table([[1]], reward=[1.0]))
    with pytest.raises(UserError, match=r"'reward' .* holds nan at row 3 \(trajectory 1"):
        advantage(make_table, [1.0, np.nan], [0, 0])
