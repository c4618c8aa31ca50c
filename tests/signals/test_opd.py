import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.errors import UserError
from agentdistill.signals import SIGNALS

episodes = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), min_size=1, max_size=4)


def naive_reward_to_go(table, reward, gamma):
    out = np.zeros(len(table))
    for t in np.flatnonzero(table.is_action):
        later = [i for i in range(t, len(table)) if table.is_action[i] and table.trajectory[i] == table.trajectory[t]]
        out[t] = sum(gamma**power * reward[i] for power, i in enumerate(later))
    return out


@given(episodes=episodes, gamma=st.floats(0, 1), seed=st.integers(0, 99))
def test_discounted_signal_equals_a_naive_loop(make_table, episodes, gamma, seed):
    n = sum(map(sum, episodes))
    logprob, teacher = -np.random.default_rng(seed).exponential(size=(2, n))
    table = make_table(episodes, logprob=logprob, teacher=teacher)
    ratio = np.zeros(len(table))
    ratio[table.is_action] = teacher - logprob
    signal = SIGNALS.resolve({"kind": "opd", "gamma": gamma})(table)
    np.testing.assert_allclose(signal, naive_reward_to_go(table, ratio, gamma), rtol=1e-12, atol=1e-12)


def test_default_signal_is_the_tokens_own_log_ratio_and_zero_elsewhere(make_table):
    table = make_table([[2], [1]], logprob=[-1, -2, -3], teacher=[-1.5, -1, -3])
    assert SIGNALS.resolve("opd")(table).tolist() == [0, 0, -0.5, 1, 0, 0, 0]


def test_discounted_sums_never_spill_onto_prompt_or_observation_tokens(make_table):
    table = make_table([[1, 1], [1]], logprob=[-1, -1, -1], teacher=[-2, -3, -4])
    signal = SIGNALS.resolve({"kind": "opd", "gamma": 1.0})(table)
    assert signal.tolist() == [0, 0, -3, 0, 0, -2, 0, 0, -3]


def test_missing_teacher_is_an_error_and_not_a_zero_signal(make_table):
    with pytest.raises(UserError, match="no column 'teacher'; it comes from a teacher"):
        SIGNALS.resolve("opd")(make_table([[1]], logprob=[-1]))


def test_infinite_teacher_logprob_on_a_student_token_is_an_error(make_table):
    with pytest.raises(UserError, match=r"'teacher' is -inf at row 2"):
        SIGNALS.resolve("opd")(make_table([[1]], logprob=[-1], teacher=[-np.inf]))


def test_discount_above_one_is_refused():
    with pytest.raises(UserError, match=r"'gamma' must be at most 1, not 1\.5"):
        SIGNALS.resolve({"kind": "opd", "gamma": 1.5})
