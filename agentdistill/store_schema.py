"""How a `Trajectory` becomes a row of Parquet and comes back exactly.

Columns carry the names of the dataclass fields. `turns`, `scores` and `messages` are lists of structs. Free-form values
(tool arguments, environment options) are JSON text: what JSON cannot hold is refused, never approximated.

Parquet text is UTF-8, which has no lone surrogates, but a model can emit them. They are stored as U+0010 (the control
character DATA LINK ESCAPE) and four hexadecimal digits, and U+0010 itself in the same way; all other text is as it was.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pyarrow as pa

from agentdistill.errors import StoreError
from agentdistill.trajectory import FloatArray, IntArray, Scores, StopReason, ToolCall, Trajectory, Turn

VERSION = 1
VERSION_KEY = b"agentdistill.schema"

Row = dict[str, Any]

_text, _int, _real, _flag = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_ids, _reals = pa.list_(pa.int32()), pa.list_(_real)

_tool_call = pa.struct([("name", _text), ("arguments", _text), ("result", _text), ("ok", _flag)])
_turn = pa.struct(
    [
        ("prompt_ids", _ids),
        ("action_ids", _ids),
        ("action", _text),
        ("observation", _text),
        ("logprobs", _reals),
        ("logprobs_t1", _reals),
        ("fresh", _flag),
        ("author", _text),
        ("finish", _text),
        ("reward", _real),
        ("terminated", _flag),
        ("truncated", _flag),
        ("tool_calls", pa.list_(_tool_call)),
        ("teacher_prompt_ids", _ids),  # null when the teacher sees what the student sees
        ("sample_seconds", _real),
        ("env_seconds", _real),
    ]
)
_scores = pa.struct(
    [
        ("scorer", _text),
        ("logprobs", _reals),
        ("entropy", _reals),
        ("k", _int),  # width of the top-k arrays, which no list shows when there are no tokens
        ("topk_ids", pa.list_(_ids)),
        ("topk_logprobs", pa.list_(_reals)),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", _text),
        ("env_id", _text),
        ("seed", _int),
        ("task_id", _text),
        ("task_type", _text),  # this and `parent` are missing in files from before there were any
        ("parent", _text),
        ("messages", pa.list_(pa.struct([("role", _text), ("content", _text)]))),
        ("turns", pa.list_(_turn)),
        ("stop_reason", _text),
        ("env_options", _text),
        ("success", _flag),
        ("policy", _text),
        ("policy_version", _int),
        ("temperature", _real),
        ("group", _int),
        ("prefix_turns", _int),
        ("windowed", _int),
        ("error", _text),
        ("scores", pa.list_(_scores)),
    ],
    metadata={VERSION_KEY: str(VERSION).encode()},
)

_PLAIN = ("seed", "success", "policy_version", "temperature", "group", "prefix_turns", "windowed")
_TEXT = ("id", "env_id", "task_id", "task_type", "parent", "policy", "error")
_ADDED = ("task_type", "parent")
_TURN_PLAIN = tuple(f.name for f in _turn if f.name not in ("action", "observation", "tool_calls"))

_UNSAFE = re.compile("[\x10\ud800-\udfff]")
_ESCAPED = re.compile("\x10([0-9a-f]{4})")


def escape(text: str) -> str:
    """The text with lone surrogates made storable as UTF-8 (see the module's docstring)."""
    return _UNSAFE.sub(lambda match: f"\x10{ord(match[0]):04x}", text)


def unescape(text: str) -> str:
    """The inverse of `escape`."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text) if "\x10" in text else text


def to_row(trajectory: Trajectory) -> Row:
    """One trajectory as a row of `SCHEMA`.

    Raises:
        StoreError: when a value has no place in the schema; it names the trajectory and the field.
    """
    t, owner = trajectory, f"trajectory '{trajectory.id}'"
    row: Row = {name: getattr(t, name) for name in _PLAIN}
    row |= {name: escape(getattr(t, name)) for name in _TEXT}
    for message in t.messages:
        if message.keys() != {"role", "content"}:
            raise StoreError(f"{owner}: a message has the keys {sorted(message)}, but only role and content are stored")
    row["messages"] = [{key: escape(value) for key, value in message.items()} for message in t.messages]
    row["stop_reason"] = t.stop_reason.value
    row["env_options"] = _dump(t.env_options, f"{owner}, env_options")
    row["turns"] = [_turn_row(turn, f"{owner}, turn {n}") for n, turn in enumerate(t.turns)]
    row["scores"] = [_scores_row(name, scores) for name, scores in t.scores.items()]
    return row


def from_row(row: Row) -> Trajectory:
    """The trajectory that `to_row` made a row of; its column `scores` may have been left out.

    Raises:
        KeyError, TypeError, ValueError: when the row is not one that `to_row` made.
    """
    text = [name for name in _TEXT if name in row or name not in _ADDED]
    fields = {name: row[name] for name in _PLAIN} | {name: unescape(row[name]) for name in text}
    return Trajectory(
        messages=[{key: unescape(value) for key, value in message.items()} for message in row["messages"]],
        turns=[_turn_from(turn) for turn in row["turns"]],
        stop_reason=StopReason(row["stop_reason"]),
        env_options=_load(row["env_options"]),
        scores={unescape(scores["scorer"]): _scores_from(scores) for scores in row.get("scores", ())},
        **fields,
    )


def _turn_row(turn: Turn, owner: str) -> Row:
    row: Row = {name: getattr(turn, name) for name in _TURN_PLAIN}
    row |= {"action": escape(turn.action), "observation": escape(turn.observation)}
    row["tool_calls"] = [
        {
            "name": escape(call.name),
            "arguments": _dump(call.arguments, f"{owner}, arguments of tool call '{call.name}'"),
            "result": escape(call.result),
            "ok": call.ok,
        }
        for call in turn.tool_calls
    ]
    return row


def _turn_from(row: Row) -> Turn:
    calls = [
        ToolCall(unescape(call["name"]), _load(call["arguments"]), unescape(call["result"]), call["ok"])
        for call in row["tool_calls"]
    ]
    fields = {name: row[name] for name in _TURN_PLAIN}
    return Turn(action=unescape(row["action"]), observation=unescape(row["observation"]), tool_calls=calls, **fields)


def _scores_row(name: str, scores: Scores) -> Row:
    topk = scores.topk_ids if scores.topk_ids is not None else scores.topk_logprobs
    return {
        "scorer": escape(name),
        "logprobs": scores.logprobs,
        "entropy": scores.entropy,
        "k": None if topk is None else topk.shape[1],
        "topk_ids": None if scores.topk_ids is None else list(scores.topk_ids),
        "topk_logprobs": None if scores.topk_logprobs is None else list(scores.topk_logprobs),
    }


def _scores_from(row: Row) -> Scores:
    def reals(values: Any) -> FloatArray:
        return np.array(values, dtype=np.float64)

    ids: IntArray | None = None
    if row["topk_ids"] is not None:
        ids = np.array(row["topk_ids"], dtype=np.int64).reshape(len(row["topk_ids"]), row["k"])
    topk = row["topk_logprobs"]
    return Scores(
        logprobs=reals(row["logprobs"]),
        entropy=None if row["entropy"] is None else reals(row["entropy"]),
        topk_ids=ids,
        topk_logprobs=None if topk is None else reals(topk).reshape(len(topk), row["k"]),
    )


def _dump(value: Any, owner: str) -> str:
    """JSON text; raw characters rather than \\u escapes, which would join two lone surrogates into one character."""
    try:
        if _is_json(value):
            return escape(json.dumps(value, ensure_ascii=False))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{owner}: cannot be stored as JSON: {error}") from error
    raise StoreError(f"{owner}: JSON cannot hold {value!r} as it is; use string keys, lists, text and numbers")


def _is_json(value: Any) -> bool:
    """Whether JSON gives the value back unchanged (Python's JSON includes NaN and infinities)."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(entry) for key, entry in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or isinstance(value, str | bool | int | float)


def _load(text: str) -> Any:
    return json.loads(unescape(text))
