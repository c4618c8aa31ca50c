"""What holds for every entry of every axis over the token table."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdistill.errors import UserError
from agentdistill.signals import TokenTable
from agentdistill.signals.method import AXES
from tests.signals.batches import EPISODE_COLUMNS, TOKEN_COLUMNS, Batch

BOTH = ("logprob", "teacher")
# axis, specification, the columns that it reads
ENTRIES = [
    ("signal", "none", ()),
    ("signal", "opd", BOTH),
    ("signal", {"kind": "opd", "gamma": 0.7}, BOTH),
    ("signal", "g-opd", (*BOTH, "reference")),
    ("signal", "iw-opd", BOTH),
    ("signal", "lightning", ("teacher", "recomputed")),
    ("baseline", "none", ()),
    ("baseline", "vopd", ("rkl",)),
    ("baseline", {"kind": "vopd", "top_k": 2}, ("rkl_topk",)),
    ("selection", "none", ()),
    ("selection", "tip", ("entropy", "rkl")),
    ("selection", {"kind": "tip", "score": "entropy"}, ("entropy",)),
    ("selection", {"kind": "tip", "score": "q3", "ratio": 0.2}, ("entropy", "fkl")),
    ("step_weight", "none", ()),
    ("step_weight", "sod", BOTH),
    ("step_weight", {"kind": "sod", "reference": "median"}, BOTH),
    ("step_weight", "mask-after-error", BOTH),
    ("step_weight", "decay-after-error", BOTH),
    ("gate", "none", ()),
    ("gate", "wrong", ("reward",)),
    ("gate", "wrong-group", ("reward", "group")),
    ("gate", "gated", (*BOTH, "reward")),
    ("gate", {"kind": "gated", "unit": "step"}, (*BOTH, "reward")),
    ("gate", {"kind": "gated", "unit": "token", "agree": 1.8, "conflict": 0.5}, (*BOTH, "reward")),
    ("gate", "sigmoid", BOTH),
    ("gate", "paired", ("reward", "group")),
    ("rl", "none", ()),
    ("rl", "grpo", ("reward", "group")),
    ("rl", "dr-grpo", ("reward", "group")),
    ("rl", "rloo", ("reward", "group")),
    ("ratio", "old", ("logprob",)),
    ("ratio", "trrd", BOTH),
    ("importance", "none", ()),
    ("importance", "truncated", ("recomputed", "behaviour")),
    ("importance", {"kind": "truncated", "cap": 1.0}, ("recomputed", "behaviour")),
    ("aggregation", "token-mean", ()),
    ("aggregation", "seq-mean-token-mean", ()),
    ("aggregation", {"kind": "seq-mean-token-sum-norm", "norm": 10}, ()),
]  # fmt: skip
SEEDS = st.integers(0, 10_000)


def name(value):
    return "-".join(map(str, value.values())) if isinstance(value, dict) else value if isinstance(value, str) else ""


every = pytest.mark.parametrize(("axis", "spec", "reads"), ENTRIES, ids=name)


def values(axis, spec, table):
    """What an entry says of the student tokens, in order."""
    choice = AXES[axis].resolve(spec)
    out = np.asarray(choice(table, table.mask) if axis in ("selection", "aggregation") else choice(table))
    assert out.shape == (len(table),)
    assert out.dtype == (np.bool_ if axis == "selection" else np.float64)
    return out[table.is_action].astype(float)


def test_every_built_in_entry_is_held_by_this_file():
    for axis, registry in AXES.items():
        if axis != "divergence":
            built_in = {n for n in registry.names() if _module(registry, n).startswith("agentdistill.")}
            assert built_in == {s if isinstance(s, str) else s["kind"] for a, s, _ in ENTRIES if a == axis}


def _module(registry, entry):
    settings = {"norm": 1} if entry == "seq-mean-token-sum-norm" else {}
    return registry.resolve({"kind": entry, **settings}).function.__module__


@every
def test_only_the_columns_it_says_are_read_and_each_missing_one_is_named(axis, spec, reads):
    batch = Batch.random(1)
    np.testing.assert_array_equal(values(axis, spec, batch.table(reads)), values(axis, spec, batch.table()))
    for column in reads:
        with pytest.raises(UserError, match=f"no column '{column}'"):
            values(axis, spec, batch.table(skip=(column,)))


@every
@pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
def test_what_is_not_finite_on_a_student_token_is_an_error_that_names_the_row(axis, spec, reads, bad):
    batch = Batch.random(2)
    row = 2 * len(batch.lengths[0]) + sum(batch.lengths[0]) + 2
    for column in set(reads) & set(TOKEN_COLUMNS):
        with pytest.raises(UserError, match=rf"'{column}' is -?(nan|inf) at row {row} \(trajectory 1, turn 0\)"):
            values(axis, spec, batch.with_token(column, bad).table())
    for column in set(reads) & set(EPISODE_COLUMNS) - {"group"}:
        batch.episodes[column][1] = bad
        with pytest.raises(UserError, match=rf"'{column}' must hold one finite value .* \(trajectory 1, turn 0\)"):
            values(axis, spec, batch.table())


@every
@settings(max_examples=8)
@given(seed=SEEDS)
def test_other_rows_change_nothing_however_many_and_whatever_they_hold(axis, spec, reads, seed):
    batch = Batch.random(seed)
    pads = np.random.default_rng(seed).integers(0, 4, size=100)
    expected = values(axis, spec, batch.table(pads=lambda i: 1, poison=[0.0]))
    # With no row between two messages they are still two steps here: the step ids say so.
    for poison in ([np.nan, -np.inf], [np.inf, 1e300, -5.0]):
        table = batch.table(pads=lambda i: int(pads[i]), poison=poison)
        np.testing.assert_array_equal(values(axis, spec, table), expected)


@every
@settings(max_examples=8)
@given(seed=SEEDS)
def test_order_of_the_trajectories_does_not_matter(axis, spec, reads, seed):
    batch = Batch.random(seed)
    order = np.random.default_rng(seed).permutation(len(batch.lengths))
    ends = np.cumsum([sum(messages) for messages in batch.lengths])[:-1]
    parts = np.split(values(axis, spec, batch.table()), ends)
    again = values(axis, spec, batch.reordered(order).table())
    np.testing.assert_allclose(again, np.concatenate([parts[i] for i in order]), rtol=1e-12, atol=1e-14)


@every
@settings(max_examples=8)
@given(seed=SEEDS)
def test_names_of_the_groups_and_episodes_without_a_student_token_do_not_matter(axis, spec, reads, seed):
    batch = Batch.random(seed)
    more = Batch(
        [[0, 0], *batch.lengths, [0]],
        {column: [np.empty(0), *parts, np.empty(0)] for column, parts in batch.tokens.items()},
        {"reward": [3, *batch.episodes["reward"], 4], "group": [-8, *(9 - 2 * g for g in batch.episodes["group"]), 77]},
    )
    np.testing.assert_allclose(values(axis, spec, more.table()), values(axis, spec, batch.table()), rtol=1e-12, atol=1e-14)


@every
def test_tables_without_rows_or_without_student_tokens_give_nothing(axis, spec, reads):
    nothing = {column: [] for column in ("trajectory", "turn", "step", "is_action", *reads)}
    assert values(axis, spec, TokenTable(nothing)).tolist() == []
    silent = {"trajectory": [0, 1], "turn": [0, 0], "step": [-1, -1], "is_action": [False, False]}
    poisoned = {column: [0.0, 0.0] if column in EPISODE_COLUMNS else [np.nan, -np.inf] for column in reads}
    table = TokenTable({**silent, **poisoned})
    assert values(axis, spec, table).tolist() == []
    mask = np.zeros(2, dtype=bool)
    if axis in ("selection", "aggregation"):
        assert not AXES[axis].resolve(spec)(table, mask).any()
