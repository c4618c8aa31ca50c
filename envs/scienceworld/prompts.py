"""How an observation is worded for an agent, and how a command is found in what it answers."""

from __future__ import annotations

from collections.abc import Sequence

INSTRUCTIONS = (
    "In each turn, think between <think> and </think>, then give one command between <action> and </action>, for "
    "example <action>look around</action>."
)
OPEN, CLOSE = "<action>", "</action>"


def first(task: str, text: str, templates: Sequence[str], objects: Sequence[str]) -> str:
    """The first observation: task, view, how to answer, and what commands look like, in lists that may be empty."""
    return f"{task}\n\n{later(text, ())}\n\n{later(instructions(templates), objects)}"


def instructions(templates: Sequence[str]) -> str:
    """How to answer, and what commands look like, in a list that may be empty."""
    known = f"\n\nCommands, where OBJ is an object: {', '.join(templates)}." if templates else ""
    return INSTRUCTIONS + known


def later(text: str, objects: Sequence[str]) -> str:
    """Any other observation, with the objects in sight."""
    return "\n\n".join([text.strip(), *filter(None, [listing(objects)])])


def command_of(message: str) -> str:
    """The last `<action>…</action>` of a message, or the message itself, in one line."""
    end = message.rfind(CLOSE)
    start = message.rfind(OPEN, 0, end) if end >= 0 else -1
    command = message[start + len(OPEN) : end] if start >= 0 else message
    # Half of a surrogate pair cannot be sent.
    return " ".join(command.encode("utf-8", "replace").decode().split())


def listing(objects: Sequence[str]) -> str:
    """The objects in sight, where there are any."""
    return f"Objects: {', '.join(objects)}." if objects else ""
