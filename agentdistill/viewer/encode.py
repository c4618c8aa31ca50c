"""A trajectory as the page gets it: a line of the list, its text, and its numbers. Every text is untrusted and made visible.

Numbers are whole ten-thousandths (of a nat, or of a weight), null where there is none: a third of what floats take, and the
page shows three decimals.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from agentdistill.report.text import visible
from agentdistill.trajectory import FloatArray, Scores, Trajectory, Turn
from agentdistill.viewer.derive import Derived
from agentdistill.viewer.tokens import Pieces

Json = dict[str, Any]
SCALE = 10_000
_LIMIT = 1e5  # nats: what is further out, and infinity, is shown as infinite
_TAIL = re.compile(r"[-_/ .:#]*\d[\w.:-]*$")  # what tells the tasks of one type apart, behind the type


def summary(item: Trajectory, batch: str, iteration: int | None, scorers: Sequence[str]) -> Json:
    """What the list shows and filters by. `kl` and `kl_max` hold, a scorer, the mean and the largest mean by turn."""
    calls = [call for turn in item.turns for call in turn.tool_calls]
    parted = [gaps(item, item.scores.get(name)) for name in scorers]
    return {
        "id": visible(item.id), "batch": batch, "iteration": iteration, "env": visible(item.env_id),
        "task": visible(item.task_id), "type": task_type(item), "seed": item.seed, "success": item.success,
        "reward": _plain(item.reward), "stop": str(item.stop_reason), "turns": len(item.turns), "tokens": item.n_action_tokens,
        "prefix": item.prefix_turns, "calls": len(calls), "errors": sum(not call.ok for call in calls),
        "policy": visible(item.policy), "version": item.policy_version, "temperature": _plain(item.temperature),
        "group": item.group, "windowed": item.windowed,
        "kl": [_short(mean([gap for turn in turns for gap in turn])) for turns in parted],
        "kl_max": [_short(max(map(mean, turns), key=_finite_first, default=math.nan)) for turns in parted],
        "parent": visible(item.parent),
    }  # fmt: skip


def text(item: Trajectory, say: Pieces) -> Json:
    """What was said: `messages`, `error`, and turns with the pieces of text that their tokens add."""
    return {
        "messages": [[visible(message["role"]), visible(message["content"])] for message in item.messages],
        "error": visible(item.error),
        "options": visible(json.dumps(item.env_options, ensure_ascii=False)) if item.env_options else "",
        "turns": [_said(turn, say) for turn in item.turns],
    }


def numbers(item: Trajectory, derived: Derived, scorers: Sequence[str], say: Pieces) -> Json:
    """What belongs to the tokens: ids, log-probs, entropies, weights, advantages, provenance; lists by turn.

    Keys `scores` and `sod` are scorers by their place in `scorers`, those of `provenance` two such places.
    """
    place = {name: str(index) for index, name in enumerate(scorers)}
    return {
        "ids": [turn.action_ids for turn in item.turns],
        "student": [tenths(turn.logprobs_t1) for turn in item.turns],
        "sampled": [tenths(turn.logprobs) for turn in item.turns] if item.temperature != 1 else None,
        "scores": {place[name]: _scores(item, scores, say) for name, scores in item.scores.items()},
        "advantage": _split(item, derived.advantage),
        "weight": _firsts(item, derived.weight),
        "sod": {place[name]: _firsts(item, values) for name, values in derived.sod.items()},
        "provenance": {f"{place[a]},{place[b]}": _classes(item, v) for (a, b), v in derived.provenance.items()},
    }


def task_type(item: Trajectory) -> str:
    """The stored kind of task; where there is none, the task's id without what numbers it: `cooking` of `cooking-1116`."""
    return visible(item.task_type or _TAIL.sub("", item.task_id))[:60]


def tenths(values: Iterable[float]) -> list[int | None]:
    """Values in whole ten-thousandths; null for NaN, and ±10⁹ for what is infinite."""
    array = np.asarray(list(values) if not isinstance(values, np.ndarray) else values, dtype=np.float64)
    whole = np.rint(np.clip(np.nan_to_num(array, nan=0.0), -_LIMIT, _LIMIT) * SCALE).astype(np.int64).tolist()
    return [None if lost else value for value, lost in zip(whole, np.isnan(array).tolist(), strict=True)]


def _said(turn: Turn, say: Pieces) -> Json:
    parts = [visible(piece) for piece in say(turn.action_ids)]
    action = visible(turn.action)
    out: Json = {
        "pieces": parts, "author": turn.author, "finish": turn.finish, "observation": visible(turn.observation),
        "reward": _plain(turn.reward), "seconds": [round(turn.sample_seconds, 3), round(turn.env_seconds, 3)],
    }  # fmt: skip
    if not says(turn, parts, say):
        out["action"] = action
    if turn.tool_calls:
        out["calls"] = [
            [visible(call.name), visible(json.dumps(call.arguments, ensure_ascii=False)), visible(call.result), call.ok]
            for call in turn.tool_calls
        ]
    for flag in ("terminated", "truncated", "fresh"):
        if getattr(turn, flag):
            out[flag] = True
    return out


def says(turn: Turn, parts: Sequence[str], say: Pieces) -> bool:
    """Whether what the environment was handed can be read off the tokens; not so without a tokenizer, for one."""
    action = visible(turn.action).strip()
    return action in "".join(parts) or (say.decode is not None and action in visible(say.decode(turn.action_ids)))


def _scores(item: Trajectory, scores: Scores, say: Pieces) -> Json:
    out: Json = {"logprobs": _split(item, scores.logprobs), "entropy": _split(item, scores.entropy)}
    if scores.topk_ids is not None and scores.topk_logprobs is not None and len(scores.topk_ids) == item.n_action_tokens:
        likely = [
            [[visible(say([int(token)])[0]), value] for token, value in zip(ids, tenths(values), strict=True)][:5]
            for ids, values in zip(scores.topk_ids, scores.topk_logprobs, strict=True)
        ]
        out["topk"] = [likely[start:end] for start, end in spans(item)]
    return out


def spans(item: Trajectory) -> list[tuple[int, int]]:
    """Where each turn's tokens lie in stream order; (0, 0) for turns that are not the student's."""
    out, at = [], 0
    for turn in item.turns:
        n = len(turn.action_ids) if turn.author == "student" else 0
        out.append((at, at + n) if n else (0, 0))
        at += n
    return out


def _split(item: Trajectory, values: FloatArray | None) -> list[list[int | None]] | None:
    """One value a student token, by turn; None where there are not as many."""
    if values is None or len(values) != item.n_action_tokens:
        return None
    whole = tenths(values)
    return [whole[start:end] for start, end in spans(item)]


def _firsts(item: Trajectory, values: FloatArray | None) -> list[int | None] | None:
    """One value a turn, for what is equal on all tokens of one."""
    parts = _split(item, values)
    return None if parts is None else [part[0] if part else None for part in parts]


def _classes(item: Trajectory, values: FloatArray) -> list[int | None]:
    return [None if start == end else int(values[start]) for start, end in spans(item)]


def gaps(item: Trajectory, scores: Scores | None) -> list[list[float]]:
    """log π − log T of each turn's tokens in nats, an empty list for a turn that is not the student's; [] without scores."""
    if scores is None or len(scores.logprobs) != item.n_action_tokens:
        return []
    theirs = scores.logprobs.tolist()
    return [
        [ours - other for ours, other in zip(turn.logprobs_t1, theirs[start:end], strict=False)]
        for turn, (start, end) in zip(item.turns, spans(item), strict=True)
    ]


def mean(values: Iterable[float]) -> float:
    """Mean of the finite ones; NaN where there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def _finite_first(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def _short(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None


def _plain(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
