import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.signals import SELECTIONS, Method
from tests.signals.batches import Batch

SCORES = ["soft-or", "entropy", "q3"]
SEEDS = st.integers(0, 10_000)


def kept(table, **settings):
    return SELECTIONS.resolve({"kind": "tip", **settings})(table, table.mask)


def minmax(values):
    low, high = min(values), max(values)
    return [0.0 if low == high else (v - low) / (high - low) for v in values]


def quantile(values, q):
    """Linear between the two values around `q·(n−1)`."""
    place = q * (len(values) - 1)
    low, high = sorted(values)[math.floor(place)], sorted(values)[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def oracle(entropy, rkl, fkl, score, vocabulary=151_936):
    """The paper's scores as written, with the entropy as a share of ln V."""
    share = [h / math.log(vocabulary) for h in entropy]
    h = minmax([min(s, quantile(share, 0.98)) for s in share])
    if score == "entropy":
        return entropy
    if score == "q3":
        return [f * (1 - a) for f, a in zip(fkl, h, strict=True)]
    return [a + d - a * d for a, d in zip(h, minmax(rkl), strict=True)]


@pytest.mark.parametrize("score", SCORES)
@given(seed=SEEDS, ratio=st.sampled_from([0.01, 0.2, 0.5, 0.75, 1.0]))
def test_the_tokens_with_the_highest_published_score_are_kept_and_no_other(score, seed, ratio):
    table = Batch.random(seed).table()
    entropy, rkl, fkl = (table[c][table.is_action].tolist() for c in ("entropy", "rkl", "fkl"))
    # The most uncertain token and the one furthest from the teacher both score exactly 1, which the oracle's sum may miss.
    points = [round(s, 12) for s in oracle(entropy, rkl, fkl, score)]
    ranked = sorted(range(len(entropy)), key=points.__getitem__, reverse=True)
    chosen = np.flatnonzero(kept(table, score=score, ratio=ratio)[table.is_action])
    assert chosen.tolist() == sorted(ranked[: max(1, int(ratio * len(entropy)))])


@pytest.mark.parametrize("score", SCORES)
def test_a_ratio_of_one_is_the_method_without_a_selection(score):
    table = Batch.random(3).table()
    plain = Method.load("opd").apply(table)
    all_kept = Method.load({"preset": "opd", "selection": {"kind": "tip", "score": score, "ratio": 1}}).apply(table)
    for column in ("advantage", "mask", "coef"):
        np.testing.assert_array_equal(getattr(all_kept, column), getattr(plain, column))


def test_the_mean_is_over_the_kept_tokens():
    table = Batch.random(3).table()
    streams = Method.load({"preset": "opd-exact", "selection": {"kind": "tip", "ratio": 0.5}}).apply(table)
    n = int(table.is_action.sum())
    assert (streams.coef > 0).sum() == n // 2 == streams.mask.sum()
    assert streams.coef.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("score", SCORES)
def test_constant_columns_rank_nothing_and_the_earliest_rows_win(make_table, score):
    table = make_table([[2, 1], [3]], entropy=[0.7] * 6, rkl=[0.2] * 6, fkl=[0.0] * 6)
    assert kept(table, score=score)[table.is_action].tolist() == [True] * 3 + [False] * 3


def test_constant_entropy_leaves_the_divergence_to_decide(make_table):
    table = make_table([[4]], entropy=[0.7] * 4, rkl=[0.1, 0.9, 0.2, 0.8], fkl=[3.0, 1.0, 0.0, 2.0])
    assert kept(table, score="soft-or")[table.is_action].tolist() == [False, True, False, True]
    assert kept(table, score="q3")[table.is_action].tolist() == [True, False, False, True]


def test_a_token_that_is_sure_and_wrong_is_seen_by_all_scores_but_entropy(make_table):
    table = make_table([[4]], entropy=[0.01, 0.02, 1.0, 0.9], rkl=[6.0, 0.1, 0.1, 0.1], fkl=[5.0, 0.1, 0.1, 0.1])
    assert kept(table, score="entropy")[table.is_action].tolist() == [False, False, True, True]
    assert kept(table, score="soft-or")[table.is_action][0]
    assert kept(table, score="q3", ratio=0.25)[table.is_action].tolist() == [True, False, False, False]


def test_one_odd_entropy_does_not_squeeze_the_others_together(make_table):
    entropy = [*np.linspace(0.0, 1.0, 99), 1e6]
    rkl = [1.0, *[0.0] * 49, *[0.0] * 49, 0.0]
    table = make_table([[100]], entropy=entropy, rkl=rkl)
    # The 3rd highest entropy scores near 1 when the odd one is cut; uncut it would score 1e-6, below the rkl of the first.
    assert kept(table, ratio=0.03)[table.is_action].nonzero()[0].tolist() == [0, 98, 99]
    assert kept(table, ratio=0.5)[table.is_action].nonzero()[0].tolist() == [0, *range(51, 100)]


def test_at_least_one_token_is_kept_and_a_fraction_is_rounded_down(make_table):
    table = make_table([[3]], entropy=[1.0, 3.0, 2.0], rkl=[0.0] * 3)
    assert kept(table, ratio=0.01)[table.is_action].tolist() == [False, True, False]
    assert kept(table, ratio=0.99)[table.is_action].tolist() == [False, True, True]


def test_tokens_outside_the_mask_are_neither_kept_nor_looked_at(make_table):
    columns = {"entropy": [0.1, 0.9, 0.5, 9.0, 9.0], "rkl": [0.3, 0.2, 0.9, 9.0, 9.0]}
    table = make_table([[3, 2]], **columns)
    near = table.with_column("depth_ok", table.turn == 0)
    alone = make_table([[3]], **{name: values[:3] for name, values in columns.items()})
    for ratio in (0.4, 0.7, 1.0):
        assert kept(near, ratio=ratio)[table.is_action].tolist() == [*kept(alone, ratio=ratio)[alone.is_action], False, False]


def test_only_what_a_score_reads_is_asked_for():
    by = {score: SELECTIONS.resolve({"kind": "tip", "score": score}) for score in SCORES}
    assert by["entropy"].needs == frozenset()
    assert by["soft-or"].needs == by["q3"].needs == {"teacher", "distribution"}
    assert [sorted(by[score].measures) for score in SCORES] == [["rkl"], [], ["fkl"]]


def test_measures_are_the_two_divergences_written_out():
    student, teacher = torch.randn(2, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    pairs = list(zip(student.tolist(), teacher.tolist(), strict=True))
    rkl = [sum(math.exp(p) * (p - q) for p, q in zip(*pair, strict=True)) for pair in pairs]
    fkl = [sum(math.exp(q) * (q - p) for p, q in zip(*pair, strict=True)) for pair in pairs]
    measure = SELECTIONS.resolve("tip").measures["rkl"]
    assert measure(student, teacher).tolist() == pytest.approx(rkl)
    measure = SELECTIONS.resolve({"kind": "tip", "score": "q3"}).measures["fkl"]
    assert measure(student, teacher).tolist() == pytest.approx(fkl)
