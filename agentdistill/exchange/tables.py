"""Trajectories as flat tables: a row a trajectory, a turn or a token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from agentdistill.exchange.source import Source
from agentdistill.store import token_frame
from agentdistill.store_schema import escape
from agentdistill.trajectory import FloatArray, Trajectory

TABLES = ("trajectories", "turns", "tokens")
_text, _int, _real, _flag = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_TRAJECTORY = [
    ("batch", _text), ("id", _text), ("env", _text), ("seed", _int), ("task_id", _text), ("task_type", _text),
    ("policy", _text), ("policy_version", _int), ("temperature", _real), ("group", _int), ("success", _flag),
    ("reward", _real), ("stop_reason", _text), ("error", _text), ("turns", _int), ("prefix_turns", _int), ("windowed", _int),
    ("tool_calls", _int), ("tool_errors", _int), ("student_tokens", _int), ("other_tokens", _int), ("imported", _flag),
    ("parent", _text), ("logprob", _real),
]  # fmt: skip
_TURN = [
    ("batch", _text), ("trajectory", _text), ("turn", _int), ("author", _text), ("action", _text), ("observation", _text),
    ("reward", _real), ("terminated", _flag), ("truncated", _flag), ("finish", _text), ("fresh", _flag),
    ("prompt_tokens", _int), ("action_tokens", _int), ("tool_calls", _int), ("tool_errors", _int), ("logprob", _real),
]  # fmt: skip


def schema(table: str, scorers: Sequence[str]) -> pa.Schema:
    """Its columns. `logprob` and `logprob.<scorer>` are nats; of turns and trajectories, means over student tokens."""
    extra = [(f"logprob.{escape(name)}", _real) for name in scorers]
    if table == "tokens":
        return pa.schema([("batch", _text), *zip(token_frame([]).schema.names, _token_types(), strict=True), *extra])
    return pa.schema([*(_TURN if table == "turns" else _TRAJECTORY), *extra])


def tables(source: Source, table: str) -> Iterator[pa.Table]:
    """The table in parts of some trajectories each, all of one schema."""
    scorers = source.scorers()
    columns = schema(table, scorers)
    for members in source.groups():
        if table == "tokens":
            yield _tokens(members, columns)
            continue
        rows: list[dict[str, object]] = []
        for batch, t in members:
            own = _by_turn(t, scorers)
            rows += _turns(batch, t, own) if table == "turns" else [_trajectory(batch, t, own)]
        yield pa.Table.from_pylist(rows, columns)


def _token_types() -> list[pa.DataType]:
    """Of the token table, its dictionary of trajectories as plain text."""
    return [_text if pa.types.is_dictionary(field.type) else field.type for field in token_frame([]).schema]


def _tokens(members: Sequence[tuple[str, Trajectory]], columns: pa.Schema) -> pa.Table:
    frame = token_frame([t for _, t in members])
    batches = np.repeat([batch for batch, _ in members], [sum(_sizes(t)) for _, t in members])
    made = {"batch": pa.array(batches.tolist(), _text)}
    for field in list(columns)[1:]:
        there = field.name in frame.schema.names
        made[field.name] = frame.column(field.name).cast(field.type) if there else pa.array(np.full(len(batches), np.nan))
    return pa.table(made, columns)


def _sizes(t: Trajectory) -> list[int]:
    return [len(turn.prompt_ids) + len(turn.action_ids) for turn in t.turns]


def _by_turn(t: Trajectory, scorers: Sequence[str]) -> dict[str, list[FloatArray]]:
    """The log-probs of each turn's student tokens: their own, and each scorer's."""
    lengths = [len(turn.action_ids) if turn.author == "student" else 0 for turn in t.turns]
    ends = np.cumsum(np.array(lengths, dtype=np.int64))[:-1]
    own = [lp for turn in t.turns if turn.author == "student" for lp in turn.logprobs]
    columns = {"logprob": np.array(own, dtype=np.float64)}
    for name in scorers:
        if name in t.scores and len(t.scores[name].logprobs) == sum(lengths):
            columns[f"logprob.{escape(name)}"] = t.scores[name].logprobs
    return {name: np.split(values, ends) for name, values in columns.items()}


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if len(values) else None


def _turns(batch: str, t: Trajectory, own: dict[str, list[FloatArray]]) -> Iterator[dict[str, object]]:
    for k, turn in enumerate(t.turns):
        yield {
            "batch": batch, "trajectory": escape(t.id), "turn": k, "author": turn.author, "action": escape(turn.action),
            "observation": escape(turn.observation), "reward": turn.reward, "terminated": turn.terminated,
            "truncated": turn.truncated, "finish": turn.finish, "fresh": turn.fresh, "prompt_tokens": len(turn.prompt_ids),
            "action_tokens": len(turn.action_ids), "tool_calls": len(turn.tool_calls),
            "tool_errors": sum(not call.ok for call in turn.tool_calls),
            **{name: _mean(parts[k]) for name, parts in own.items()},
        }  # fmt: skip


def _trajectory(batch: str, t: Trajectory, own: dict[str, list[FloatArray]]) -> dict[str, object]:
    calls = [call for turn in t.turns for call in turn.tool_calls]
    return {
        "batch": batch, "id": escape(t.id), "env": escape(t.env_id), "seed": t.seed, "task_id": escape(t.task_id),
        "task_type": escape(t.task_type), "policy": escape(t.policy), "policy_version": t.policy_version,
        "temperature": t.temperature, "group": t.group, "success": t.success, "reward": t.reward,
        "stop_reason": t.stop_reason.value, "error": escape(t.error), "turns": len(t.turns), "prefix_turns": t.prefix_turns,
        "windowed": t.windowed, "tool_calls": len(calls), "tool_errors": sum(not call.ok for call in calls),
        "student_tokens": t.n_action_tokens, "other_tokens": sum(_sizes(t)) - t.n_action_tokens, "imported": t.imported,
        "parent": escape(t.parent), **{name: _mean(np.concatenate(parts)) for name, parts in own.items() if parts},
    }  # fmt: skip
