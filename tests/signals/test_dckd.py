"""Distillation from pairs: who is imitated, who is only distilled on, and how much each half of a pair weighs."""

import itertools
import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.errors import UserError
from agentdistill.signals import DIVERGENCES, GATES, Method
from tests.signals.distributions import Case

EPISODES = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([-1.0, 0.0, 0.5, 1.0])), min_size=1, max_size=8)


def plain(pi, t, token, chosen, sft, alpha):
    forward = sum(b * math.log(b / a) for a, b in zip(pi, t, strict=True))
    return sft * chosen * -math.log(pi[token]) + alpha * forward


@pytest.mark.parametrize(("sft", "alpha"), [(1.0, 0.2), (0.5, 1.0), (0.0, 2.0), (3.0, 0.0)])
def test_the_chosen_are_imitated_and_both_are_distilled_on(sft, alpha):
    case = Case.random({"kind": "dckd", "sft": sft, "alpha": alpha}, n=12)
    student, teacher, ids, reward = case.data()
    chosen = [float(r > 0) for r in reward.tolist()]
    assert 0 < sum(chosen) < 12
    rows = zip(student.exp().tolist(), teacher.exp().tolist(), ids.tolist(), chosen, strict=True)
    assert case.value().tolist() == pytest.approx([plain(*row, sft, alpha) for row in rows])


def test_published_factor_is_the_default_and_imitation_is_whole():
    assert DIVERGENCES.resolve("dckd").params == {"sft": 1.0, "alpha": 0.2, "threshold": 0.0}


def test_an_episode_is_chosen_above_the_threshold_and_not_at_it():
    case = Case.random({"kind": "dckd", "alpha": 0.0, "threshold": 0.5}, n=3)
    student, teacher, ids, _ = case.data()
    value = case.choice(student, teacher, ids, torch.tensor([0.5, 0.6, -1.0]))
    assert [v == 0 for v in value.tolist()] == [True, False, True]


def test_a_term_of_factor_zero_adds_nothing_even_where_it_is_infinite():
    case = Case.random({"kind": "dckd", "alpha": 0.0}, n=4)
    with torch.no_grad():
        case.student[:, 2] = -math.inf  # the teacher may say it, so the forward KL is infinite
    case.ids = torch.full((4,), 3)
    assert case.value().isfinite().all()
    assert case.gradient().isfinite().all()
    case.spec = {"kind": "dckd", "sft": 0.0}
    assert case.value().tolist() == [math.inf] * 4


def weights(make_table, data, **settings):
    """The gate of episodes of one token, given as (group, reward)."""
    table = make_table([[1]] * len(data), group=[g for g, _ in data], reward=[r for _, r in data])
    return GATES.resolve({"kind": "paired", **settings})(table)[table.is_action].tolist()


@pytest.mark.parametrize("threshold", [0.0, 0.5])
@given(data=EPISODES)
def test_each_kind_weighs_half_its_group_whatever_their_numbers(make_table, data, threshold):
    expected = []
    for group, reward in data:
        mates = [r > threshold for g, r in data if g == group]
        same = sum(right == (reward > threshold) for right in mates)
        expected.append(len(mates) / (2 * same) if 0 < sum(mates) < len(mates) else 0.0)
    assert weights(make_table, data, threshold=threshold) == pytest.approx(expected)


@given(data=EPISODES, seed=st.integers(0, 99))
def test_the_loss_is_the_mean_over_all_pairs_of_a_task_of_both_halves(make_table, data, seed):
    """Groups count by their size; within one, every right episode meets every wrong one."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 4, size=len(data)).tolist()
    losses = [rng.exponential(size=n) for n in lengths]
    rows = {"loss": np.concatenate(losses), "logprob": np.full(sum(lengths), -1.0)}
    table = make_table([[n] for n in lengths], group=[g for g, _ in data], reward=[r for _, r in data], **rows)
    streams = Method.load("dckd").apply(table)
    acts = table.is_action
    found = float((streams.coef * streams.kd_weight)[acts] @ table["loss"][acts])
    expected = 0.0
    for group in {g for g, _ in data}:
        own = [(r > 0, float(losses[i].mean())) for i, (g, r) in enumerate(data) if g == group]
        right, wrong = ([mean for won, mean in own if won is kind] for kind in (True, False))
        pairs = [a + b for a, b in itertools.product(right, wrong)]
        expected += len(own) / len(data) * statistics.fmean(pairs) / 2 if pairs else 0.0
    assert found == pytest.approx(expected)


def test_one_pair_is_half_the_published_loss(make_table):
    case = Case.random("dckd", n=5)
    student, teacher, ids, _ = case.data()
    table = make_table([[2], [3]], group=[0, 0], reward=[1.0, -1.0], logprob=[-1.0] * 5)
    streams = Method.load("dckd").apply(table)
    reward = torch.tensor(table["reward"][table.is_action])
    factor = torch.tensor((streams.coef * streams.kd_weight)[table.is_action])
    loss = (factor * case.choice(student, teacher, ids, reward)).sum()
    forward = (teacher.exp() * (teacher - student)).sum(-1)
    imitation = -student.gather(1, ids[:, None])[:, 0]
    published = imitation[:2].mean() + 0.2 * (forward[:2].mean() + forward[2:].mean())
    torch.testing.assert_close(loss, published / 2)


def test_every_student_token_of_an_episode_has_its_weight_and_no_other_token(make_table):
    table = make_table([[2, 1], [1], [1]], group=[0, 0, 0], reward=[1.0, 0.0, -1.0])
    expected = np.where(table.is_action, np.array([1.5, 0.75, 0.75])[table.trajectory], 0.0)
    np.testing.assert_array_equal(GATES.resolve("paired")(table), expected)


def test_an_episode_that_says_nothing_is_nobodys_other_half(make_table):
    table = make_table([[2], [0]], group=[4, 4], reward=[1.0, 0.0])
    assert (GATES.resolve("paired")(table) == 0).all()


def test_a_reward_that_is_not_told_is_an_error_and_not_a_rejection(make_table):
    table = make_table([[1], [1]], group=[0, 0], reward=[1.0, np.nan], logprob=[-1.0] * 2)
    for gate in ("paired", "none"):
        with pytest.raises(UserError, match=r"'reward' must hold one finite value .* holds nan at row 3 \(trajectory 1"):
            Method.load({"preset": "dckd", "gate": gate}).apply(table)
