"""Trajectories as JSON lines, whole: messages, rewards, token ids, log-probs, and everybody's scores. Written only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentdistill.exchange.chat_jsonl import row as chat_row
from agentdistill.exchange.lines import write_lines
from agentdistill.exchange.registry import Format, register
from agentdistill.exchange.source import Source
from agentdistill.trajectory import Scores, Trajectory, Turn

_NAMES = ("parent", "policy_version", "group", "prefix_turns", "windowed")
_TURN = (
    "author", "action", "observation", "reward", "terminated", "truncated", "finish", "fresh", "prompt_ids", "action_ids",
    "logprobs", "logprobs_t1",
)  # fmt: skip


def write(source: Source, out: Path) -> int:
    """One trajectory a line."""
    return write_lines(out, (row(batch, trajectory) for batch, trajectory in source))


def row(batch: str, t: Trajectory) -> dict[str, Any]:
    """A line of chat JSONL, and beside it what that leaves out."""
    return {
        "batch": batch, **chat_row(t), **{name: getattr(t, name) for name in _NAMES},
        "turns": [_turn(each) for each in t.turns],
        "scores": {name: _scores(each) for name, each in t.scores.items()},
    }  # fmt: skip


def _turn(turn: Turn) -> dict[str, Any]:
    calls = [{"name": c.name, "arguments": c.arguments, "result": c.result, "ok": c.ok} for c in turn.tool_calls]
    return {name: getattr(turn, name) for name in _TURN} | {"tool_calls": calls}


def _scores(scores: Scores) -> dict[str, Any]:
    """One entry a student token, in stream order."""
    arrays = ("logprobs", "entropy", "topk_ids", "topk_logprobs")
    return {name: value.tolist() for name in arrays if (value := getattr(scores, name)) is not None}


register(Format("jsonl", "whole trajectories with scores, one a line", write=write))
