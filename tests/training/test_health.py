"""Signal health, on batches small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from agentdistill.signals import GATES, SELECTIONS, SIGNALS, Method, TokenTable
from agentdistill.training.health import agreement, terms, token_shares, weighting
from agentdistill.training.score import Scored
from agentdistill.trajectory import BoolArray, FloatArray


@SELECTIONS.register("test-not-the-first")
def not_the_first(table: TokenTable, mask: BoolArray) -> BoolArray:
    return mask & (np.arange(len(table)) != np.flatnonzero(mask)[0])


@GATES.register("test-first-episode")
def first_episode(table: TokenTable) -> FloatArray:
    return (table.trajectory == 0).astype(float)


@SIGNALS.register("test-twos")
def twos(table: TokenTable) -> FloatArray:
    return np.full(len(table), -2.0)


@pytest.fixture
def scored() -> Scored:
    """Two episodes: a prompt token and two steps of two tokens, of which the last is too deep; and three tokens of one step."""
    nan = np.nan
    table = TokenTable(
        {
            "trajectory": [0] * 5 + [1] * 4, "turn": [0, 0, 0, 1, 1, 0, 0, 0, 0], "step": [-1, 0, 0, 1, 1, -1, 0, 0, 0],
            "is_action": [False, True, True, True, True, False, True, True, True],
            "depth_ok": [True, True, True, True, False, True, True, True, True],
            "logprob": [nan, -1, -1, -1, -1, nan, -2, -2, -2], "teacher": [nan, -2, -2, -2, -9, nan, -2, -2, -2],
            "reward": [1.0] * 5 + [0.0] * 4, "group": [0] * 9,
        }
    )  # fmt: skip
    return Scored(table, [], None)


def test_every_token_is_counted_once_by_the_first_reason_that_drops_it(scored: Scored) -> None:
    method = Method.load({"signal": "test-twos", "selection": "test-not-the-first", "gate": "test-first-episode"})
    shares = token_shares(scored, method.apply(scored.table))
    assert {name: round(9 * share) for name, share in shares.items()} == {
        "not_student": 2, "depth": 1, "selection": 1, "gate": 3, "kept": 2,
    }  # fmt: skip
    assert sum(shares.values()) == pytest.approx(1)


def test_terms_are_told_apart_and_the_batch_is_as_large_as_its_weights_are_even(scored: Scored) -> None:
    method = Method.load({"signal": "test-twos", "rl": "dr-grpo", "kd_coef": 0.5, "rl_coef": 4.0})
    found = terms(scored, method.apply(scored.table), 0.0)
    assert found["kd_abs"] == pytest.approx(1.0)
    assert found["rl_abs"] == pytest.approx(2.0)
    assert found["advantage_abs"] == pytest.approx((3 * 1.0 + 3 * 3.0) / 6)  # 2 − 1 in one episode, −2 − 1 in the other
    assert found["effective_batch"] == pytest.approx(2.0)
    gated = Method.load({"signal": "test-twos", "gate": "test-first-episode"})
    assert terms(scored, gated.apply(scored.table), 0.25)["effective_batch"] == pytest.approx(1.0)
    exact = Method.load({"divergence": "k2"})
    assert terms(scored, exact.apply(scored.table), 0.25)["kd_abs"] == 0.25


def test_steps_fall_into_bins_by_weight(scored: Scored) -> None:
    table = scored.table.with_column("teacher", [np.nan, -1.0, -1.0, -2.0, -3.0, np.nan, -2.5, -2.5, -2.5])
    weights = weighting(Scored(table, [], None), Method.load({"signal": "opd", "step_weight": "sod"}).apply(table))
    assert weights["weight_shares"] == pytest.approx([1 / 3, 0, 0, 2 / 3, 0])  # d_1 = 0 kills the step behind it
    assert weights["weight_small_share"] == pytest.approx(1 / 3)
    over = weighting(
        Scored(table, [], None),
        Method.load({"signal": "opd", "step_weight": {"kind": "sod", "reference": "median"}}).apply(table),
    )
    assert over["weight_shares"][-1] == pytest.approx(1 / 3)
    plain = weighting(scored, Method.load("opd").apply(scored.table))
    assert plain["weight_shares"] == [0, 0, 0, 1, 0]


def test_the_divergence_does_not_depend_on_what_a_method_selects(scored: Scored) -> None:
    found = agreement(scored)
    assert found["kl"] == pytest.approx(3 / 6)  # the token that is too deep is not of the batch
    assert found["log_ratio_sum"] == pytest.approx(3 / 2)
    assert found["kl_by_turn"] == pytest.approx([2 / 5, (1 + 8) / 2])
    assert found["log_ratio_sum_by_turn"] == pytest.approx([(2 + 0) / 2, 9])


def test_a_turn_that_nobody_spoke_in_has_no_sum(scored: Scored) -> None:
    table = scored.table.with_column("turn", np.where(scored.table.turn == 1, 2, 0))
    found = agreement(Scored(table, [], None))["log_ratio_sum_by_turn"]
    assert found[0] == pytest.approx(1)
    assert np.isnan(found[1])
    assert found[2] == pytest.approx(9)
