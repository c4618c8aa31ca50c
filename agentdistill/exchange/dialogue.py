"""Messages and their text: tool calls as a model writes them, and a trajectory as the messages it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from agentdistill.toolcall import CallFormat, call_format
from agentdistill.trajectory import Trajectory, Turn

Message = dict[str, Any]


class NamedCall(Protocol):
    """A call by a name, with arguments."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def arguments(self) -> dict[str, Any]: ...  # noqa: D102


def written(content: str, calls: Sequence[NamedCall], form: CallFormat) -> str:
    """An assistant's message with its calls, as a model writes it."""
    parts = [content] if content else []
    return "\n".join([*parts, *(form.format_call(call.name, call.arguments) for call in calls)])


def plain(trajectory: Trajectory) -> list[Message]:
    """The conversation as text alone: tool calls and their results as the student wrote and read them."""
    out: list[Message] = [dict(message) for message in trajectory.messages]
    for k, turn in enumerate(trajectory.turns):
        out.append({"role": "assistant", "content": turn.action})
        if turn.observation or k < len(trajectory.turns) - 1:
            out.append({"role": "user", "content": turn.observation})
    return out


def structured(trajectory: Trajectory, form: str = "hermes") -> list[Message]:
    """The conversation as OpenAI's messages, with `tool_calls` and `tool` messages wherever these say exactly the same text.

    A message that would not come back as it was (a malformed call, words behind one) stays text.

    Args:
        form: the call format in which the text is written.
    """
    out: list[Message] = [dict(message) for message in trajectory.messages]
    for k, turn in enumerate(trajectory.turns):
        last = k == len(trajectory.turns) - 1
        out += _with_calls(turn, k, last, call_format(form)) or _as_text(turn, last)
    return out


def _as_text(turn: Turn, last: bool) -> list[Message]:
    out = [{"role": "assistant", "content": turn.action}]
    return out if last and not turn.observation else [*out, {"role": "user", "content": turn.observation}]


def _with_calls(turn: Turn, k: int, last: bool, form: CallFormat) -> list[Message] | None:
    """The turn with its calls set apart, or None where that would not give its text again."""
    found = form.parse(turn.action)
    calls = turn.tool_calls
    if not calls or [(c.name, c.arguments) for c in found.calls] != [(c.name, c.arguments) for c in calls]:
        return None
    content = turn.action.removesuffix(written("", calls, form)).removesuffix("\n")
    if written(content, calls, form) != turn.action or form.parse(content).calls:
        return None
    ids = [f"call_{k}_{n}" for n in range(len(calls))]
    said: Message = {
        "role": "assistant", "content": content,
        "tool_calls": [
            {"id": each, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
            for each, call in zip(ids, calls, strict=True)
        ],
    }  # fmt: skip
    results = "\n".join(form.format_response(call.result) for call in calls)
    rest = turn.observation.removeprefix(results).removeprefix("\n")
    if turn.observation == (f"{results}\n{rest}" if rest else results):
        tool = [
            {"role": "tool", "tool_call_id": each, "name": call.name, "content": call.result}
            | ({} if call.ok else {"error": True})
            for each, call in zip(ids, calls, strict=True)
        ]
        return [said, *tool, *([{"role": "user", "content": rest}] if rest else [])]
    return [said] if last and not turn.observation else [said, {"role": "user", "content": turn.observation}]
