"""Chat JSONL: `{"messages": [...]}` a line, as OpenAI's API and most fine-tuning data have it. Read and written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentdistill.errors import nearest
from agentdistill.exchange.conversation import BadRecord, Conversation, checked, messages_from, number, text, tools_from
from agentdistill.exchange.dialogue import structured
from agentdistill.exchange.lines import read_lines, write_lines
from agentdistill.exchange.registry import Format, Record, register
from agentdistill.exchange.source import Source
from agentdistill.trajectory import StopReason, Trajectory


def read(path: Path) -> Iterator[Record]:
    """The conversations of a file."""
    return read_lines(path, conversation)


def conversation(raw: dict[str, Any]) -> Conversation:
    """One line. Beside `messages` everything is optional.

    Raises:
        BadRecord: where it is no conversation.
    """
    if "messages" not in raw:
        raise BadRecord(f"it has no entry 'messages'{nearest('messages', raw)}")
    success, seed, rewards, options = (raw.get(name) for name in ("success", "seed", "rewards", "env_options"))
    if not isinstance(success, bool | None):
        raise BadRecord(f"'success' must be true or false, not {success!r}")
    if not isinstance(seed, int | None) or isinstance(seed, bool):
        raise BadRecord(f"'seed' must be a whole number, not {seed!r}")
    if not isinstance(rewards, list | None) or not isinstance(options, dict | None):
        raise BadRecord("'rewards' must be a list, and 'env_options' an object")
    paid = [number({"rewards": each}, "rewards") for each in rewards or []]
    stop, heat = text(raw, "stop_reason") or StopReason.TERMINATED.value, number(raw, "temperature")
    if stop not in list(StopReason):
        raise BadRecord(f"'stop_reason' is '{stop}', which is none of {', '.join(StopReason)}")
    return Conversation(
        checked(messages_from(raw["messages"])), tools_from(raw.get("tools")), text(raw, "id"), text(raw, "task_id"),
        text(raw, "task_type"), text(raw, "env") or "imported", options or {}, seed, text(raw, "model"),
        1.0 if heat is None else heat, number(raw, "reward"), [float("nan") if each is None else each for each in paid],
        success, StopReason(stop), text(raw, "finish") == "length", text(raw, "error"),
    )  # fmt: skip


def write(source: Source, out: Path) -> int:
    """One conversation a line."""
    return write_lines(out, (row(trajectory) for _, trajectory in source))


def row(t: Trajectory) -> dict[str, Any]:
    """A line that `conversation` reads back to the same messages, rewards and names."""
    out: dict[str, Any] = {
        "id": t.id, "messages": structured(t), "reward": t.reward, "success": t.success, "task_id": t.task_id,
        "env": t.env_id, "seed": t.seed, "model": t.policy, "temperature": t.temperature, "stop_reason": t.stop_reason.value,
        "rewards": [turn.reward for turn in t.turns],
    }  # fmt: skip
    if t.turns and t.turns[-1].finish == "length":
        out["finish"] = "length"
    return out | {name: value for name in ("task_type", "env_options", "error") if (value := getattr(t, name))}


register(Format("chat", "OpenAI-style messages, a conversation a line", read, write))
