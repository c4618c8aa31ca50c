"""How a message names an action."""

from __future__ import annotations

_OPEN, _CLOSE = "<action>", "</action>"


def parse(message: str) -> tuple[str, str]:
    """The name and the argument, in lower case, of a message's action; the argument is empty where it is none.

    The action is that of `action_of`; the two are what the original's `(.+)\\[(.+)\\]` matches from its beginning. The
    expression itself takes the square of the length where a message is full of brackets.
    """
    action = action_of(message)
    line = action.partition("\n")[0]
    end = line.rfind("]")
    start = line.rfind("[", 1, end - 1) if end > 2 else -1
    return (line[:start], line[start + 1 : end].lower()) if start > 0 else (action, "")


def action_of(message: str) -> str:
    """The last `<action>…</action>` of a message, or all of it."""
    end = message.rfind(_CLOSE)
    start = message.rfind(_OPEN, 0, end) if end >= 0 else -1
    return (message[start + len(_OPEN) : end] if start >= 0 else message).strip()


def click(element: str) -> str:
    """The action that clicks an element."""
    return f"click[{element.lower()}]"


def can_click(element: str) -> bool:
    """Whether an action can name the element; one with brackets it cannot."""
    return parse(click(element)) == ("click", element.lower())


def tagged(action: str) -> str:
    """The message of an action."""
    return f"{_OPEN}{action}{_CLOSE}"
