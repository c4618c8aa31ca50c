import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.signals import GATES, Method


def gate(make_table, kind, reward, group, **settings):
    table = make_table([[1]] * len(reward), reward=reward, group=group)
    return GATES.resolve({"kind": kind, **settings})(table)[table.is_action].tolist()


@given(data=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([-1.0, 0.0, 0.5, 1.0])), min_size=1, max_size=9))
@pytest.mark.parametrize("threshold", [-0.5, 0.0, 0.5])
def test_the_teacher_is_heard_on_wrong_episodes_or_where_the_whole_group_is_wrong(make_table, data, threshold):
    group, reward = [g for g, _ in data], [r for _, r in data]
    wrong = [float(r <= threshold) for r in reward]
    all_wrong = [float(all(r <= threshold for h, r in data if h == g)) for g in group]
    assert gate(make_table, "wrong", reward, group, threshold=threshold) == wrong
    assert gate(make_table, "wrong-group", reward, group, threshold=threshold) == all_wrong


@pytest.mark.parametrize("kind", ["wrong", "wrong-group"])
def test_every_student_token_of_an_episode_is_heard_and_no_other_token(make_table, kind):
    table = make_table([[2, 1]], reward=[0.0], group=[0])
    np.testing.assert_array_equal(GATES.resolve(kind)(table), table.is_action)


def test_plus_and_minus_one_and_one_and_nothing_are_told_apart_by_default(make_table):
    for bad in (-1.0, 0.0):
        assert gate(make_table, "wrong", [1.0, bad, bad], [0, 0, 1]) == [0, 1, 1]
        assert gate(make_table, "wrong-group", [1.0, bad, bad], [0, 0, 1]) == [0, 0, 1]


@pytest.mark.parametrize("kind", ["wrong", "wrong-group"])
def test_the_mask_changes_the_numerator_only(make_table, kind):
    table = make_table([[2], [1]], logprob=[-1.0] * 3, teacher=[-2.0] * 3, reward=[1.0, 0.0], group=[0, 1])
    plain = Method.load("opd").apply(table)
    masked = Method.load({"preset": "opd", "gate": kind}).apply(table)
    np.testing.assert_array_equal(masked.coef, plain.coef)
    np.testing.assert_array_equal(masked.mask, plain.mask)
    assert masked.advantage[table.is_action].tolist() == [0.0, 0.0, -1.0]


@pytest.mark.parametrize("kind", ["wrong", "wrong-group"])
def test_where_all_are_right_nothing_is_distilled_and_nothing_is_divided_by_zero(make_table, kind):
    table = make_table([[2], [1]], logprob=[-1.0] * 3, teacher=[-2.0] * 3, reward=[1.0, 1.0], group=[0, 1])
    with np.errstate(all="raise"):
        streams = Method.load({"preset": "opd", "gate": kind}).apply(table)
        exact = Method.load({"divergence": "k2", "gate": kind}).apply(table)
    assert (streams.advantage == 0).all()
    assert (exact.kd_weight == 0).all()
    assert exact.coef.sum() == pytest.approx(1.0)


def test_without_its_coefficient_kdrl_is_grpo_to_the_bit(make_table):
    table = make_table([[2], [1]], logprob=[-1.0] * 3, teacher=[-2.0] * 3, reward=[1.0, 0.0], group=[0, 0])
    plain, silenced = Method.load("grpo").apply(table), Method.load({"preset": "kdrl-masked", "kd_coef": 0}).apply(table)
    np.testing.assert_array_equal(silenced.advantage, plain.advantage)
    np.testing.assert_array_equal(silenced.coef, plain.coef)
    assert (silenced.kd_weight == 0).all()
    assert plain.advantage.any()
