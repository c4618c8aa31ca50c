"""A conversation that was had elsewhere, in one form whatever log it comes from: what readers give and the encoder takes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentdistill.trajectory import StopReason

ROLES = ("system", "user", "assistant", "tool")


class BadRecord(ValueError):
    """A record that is no conversation; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Called:
    """A tool call of an assistant's message.

    Attributes:
        id: what the message with its result refers to; empty where the log has none.
    """

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """One message.

    Attributes:
        role: one of `ROLES`.
        content: its text; an assistant's thinking is in it, between `<think>` tags.
        calls: an assistant's tool calls.
        answers: for a tool's message, the id of the call that it answers, where the log has one.
        failed: whether a tool's message is an error.
    """

    role: str
    content: str
    calls: tuple[Called, ...] = ()
    answers: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation, and what its log says of it.

    Attributes:
        messages: in order; the first assistant's message has another in front of it.
        tools: what the assistant could call, as OpenAI function schemas.
        id: the log's name for the conversation; empty: it gets one.
        task_id: the log's name for the task; empty: the messages before the first answer name it.
        env: where it was had.
        seed: of the task, or None.
        model: who the assistant was.
        reward: of the whole, or None where none was told.
        rewards: by assistant's message, where told.
        success: whether it was one, or None where the reward is to decide.
        stop: why it ended.
        cut: whether the last message ended by the length limit.
        error: of the environment, where `stop` is ENV_ERROR.
    """

    messages: Sequence[Said]
    tools: Sequence[Mapping[str, Any]] = ()
    id: str = ""
    task_id: str = ""
    task_type: str = ""
    env: str = "imported"
    env_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    model: str = ""
    temperature: float = 1.0
    reward: float | None = None
    rewards: Sequence[float] = ()
    success: bool | None = None
    stop: StopReason = StopReason.TERMINATED
    cut: bool = False
    error: str = ""


def messages_from(raw: object, where: str = "messages") -> list[Said]:
    """Messages in the forms that OpenAI's API, inspect_ai and verifiers write.

    Content is text, null, or a list of parts; tool calls are `{"id", "function": {"name", "arguments"}}`, the same without the
    inner mapping, or either as JSON text. `developer` counts as `system`, and `reasoning_content` as thinking.

    Raises:
        BadRecord: naming the message, counted from 1.
    """
    if not isinstance(raw, list) or not raw:
        raise BadRecord(f"'{where}' is no list of messages")
    return [_message(each, f"message {n} of '{where}'") for n, each in enumerate(raw, 1)]


def checked(messages: Sequence[Said]) -> Sequence[Said]:
    """The messages, if a student can be taken to have said some of them.

    Raises:
        BadRecord: where no message is an assistant's, or the first is; where a system message comes later: no episode has such.
    """
    roles = [each.role for each in messages]
    if "assistant" not in roles:
        raise BadRecord("it has no assistant message")
    first = roles.index("assistant")
    if first == 0:
        raise BadRecord("it begins with an assistant message, so nothing says what that answers")
    if "system" in roles[first:]:
        raise BadRecord(f"message {roles.index('system', first) + 1} is a system message after the assistant's first")
    return messages


def tools_from(raw: object) -> list[dict[str, Any]]:
    """Tools as OpenAI function schemas, from these or from `{"name", "description", "parameters"}`.

    Raises:
        BadRecord: for one that is neither.
    """
    if raw is None:
        return []
    if not isinstance(raw, list):
        raise BadRecord("'tools' is no list")
    out = []
    for n, each in enumerate(raw, 1):
        about = _mapping(each, f"tool {n}")
        about = about["function"] if isinstance(about.get("function"), dict) else about
        if not isinstance(about.get("name"), str):
            raise BadRecord(f"tool {n} has no name")
        parameters = about.get("parameters")
        if not isinstance(parameters, dict):
            parameters = {"type": "object", "properties": {}}
        said = {"name": about["name"], "description": str(about.get("description") or ""), "parameters": parameters}
        out.append({"type": "function", "function": said})
    return out


def number(raw: Mapping[str, Any], name: str) -> float | None:
    """An entry that is a finite number, true and false counting as 1 and 0, or None where there is none.

    Raises:
        BadRecord: where it is something else.
    """
    value = raw.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRecord(f"'{name}' must be a finite number, not {json.dumps(value, ensure_ascii=False)[:60]}")
    return float(value)


def text(raw: Mapping[str, Any], name: str) -> str:
    """An entry that is text or a number, as text; empty where there is none.

    Raises:
        BadRecord: where it is something else.
    """
    value = raw.get(name)
    if value is not None and not isinstance(value, str | int | float):
        raise BadRecord(f"'{name}' must be text, not {json.dumps(value, ensure_ascii=False)[:60]}")
    return "" if value is None else str(value)


def _message(raw: object, where: str) -> Said:
    raw = _mapping(raw, where)
    role = raw.get("role")
    role = {"developer": "system", "function": "tool"}.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        known = ", ".join(ROLES)
        raise BadRecord(f"{where} has the role {json.dumps(role)[:40]}, which is none of {known}")
    content = _content(raw.get("content"), where)
    thought = raw.get("reasoning_content") or raw.get("reasoning")
    if role == "assistant" and isinstance(thought, str) and thought:
        content = f"{_thinking(thought)}{content}"
    calls = raw.get("tool_calls") or []
    if not isinstance(calls, list):
        raise BadRecord(f"{where} has tool_calls that are no list")
    if calls and role != "assistant":
        raise BadRecord(f"{where} has tool calls, and its role is {role}")
    found = tuple(_call(each, f"tool call {n} of {where}") for n, each in enumerate(calls, 1))
    return Said(role, content, found, str(raw.get("tool_call_id") or ""), bool(raw.get("error")))


def _content(raw: object, where: str) -> str:
    if raw is None:
        return ""
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, list):
        raise BadRecord(f"{where} has content that is neither text nor a list of parts")
    out = []
    for part in raw:
        part = {"type": "text", "text": part} if isinstance(part, str) else _mapping(part, where)
        kind = part.get("type")
        if kind == "reasoning" and isinstance(part.get("reasoning"), str):
            out.append(_thinking(part["reasoning"]))
        elif isinstance(part.get("text"), str) and kind in (None, "text", "input_text", "output_text"):
            out.append(part["text"])
        else:
            raise BadRecord(f"{where} has a part of type {json.dumps(kind)[:40]}, and only text can be imported")
    return "".join(out)


def _thinking(thought: str) -> str:
    return f"<think>\n{thought}\n</think>\n\n"


def _call(raw: object, where: str) -> Called:
    raw = _mapping(_json(raw, where) if isinstance(raw, str) else raw, where)
    inner = raw.get("function")
    about = inner if isinstance(inner, dict) else raw
    name = inner if isinstance(inner, str) else about.get("name")
    if not isinstance(name, str) or not name:
        raise BadRecord(f"{where} names no function")
    arguments = about.get("arguments")
    if isinstance(arguments, str):
        arguments = _json(arguments, f"the arguments of {where}") if arguments.strip() else {}
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise BadRecord(f"the arguments of {where} are no JSON object")
    return Called(str(raw.get("id") or ""), name, arguments)


def _json(raw: str, where: str) -> object:
    try:
        return json.loads(raw)
    except ValueError as error:
        raise BadRecord(f"{where} cannot be read as JSON: {error}") from error


def _mapping(raw: object, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise BadRecord(f"{where} is no JSON object")
    return raw
