"""How an observation is worded for an agent, and how a command is found in what it answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from agentdistill.errors import UserError, nearest

INSTRUCTIONS = (
    "In each turn, think between <think> and </think>, then give one command between <action> and </action>, for "
    "example <action>look</action>."
)
OPEN, CLOSE = "<action>", "</action>"
_IN_ORDER = ("<think>", "</think>", OPEN, CLOSE)
_HAN = re.compile(r"[\u4e00-\u9fff]")
_FIELDS = {"observation": "", "goal": "", "listing": ""}


class Prompt(pydantic.BaseModel, extra="forbid", frozen=True):
    """Templates of what an agent is shown. Where an earlier turn is to be seen again, the trainer's context does it.

    Attributes:
        first: the first observation, with the fields `{observation}`, `{goal}` and `{listing}`.
        later: all others, with the same fields.
        listing: the admissible commands, with the field `{commands}`; an empty string where they are not to be shown.
        item: one of them, with the field `{command}`.
        separator: stands between two of them.
        instructions: how to answer, for a view that shows it in a place of its own.
    """

    first: str
    later: str
    listing: str = "\n\nAdmissible commands: {commands}."
    item: str = "{command}"
    separator: str = ", "
    instructions: str = INSTRUCTIONS

    def show(self, observation: str, goal: str, commands: Sequence[str] | None, *, first: bool) -> str:
        """The text for an agent; `commands` is None where they are not to be listed."""
        listing = ""
        if commands is not None:
            items = self.separator.join(self.item.format(command=command) for command in commands)
            listing = self.listing.format(commands=items)
        return (self.first if first else self.later).format(observation=observation, goal=goal, listing=listing)


_ROLE = "You are an agent who is expert in household tasks, in a world of text."
_TURN = (
    "It is your turn. Reason about the situation step by step first, between <think> and </think>; then choose one "
    "admissible action and give it between <action> and </action>."
)
# The order of things is TCOD's and verl-agent's; the sentences are our own. A model that was trained on a peer's very words
# is given them by `prompt: {first: …, later: …}`.
PROMPTS = {
    "tcod": Prompt(first=f"{{observation}}\n\n{INSTRUCTIONS}{{listing}}", later="{observation}{listing}"),
    "verl-agent": Prompt(
        first=f"{_ROLE}\nYou see: {{observation}}{{listing}}\n\n{_TURN}",
        later=f"{_ROLE} Your task is to: {{goal}}.\nYou see: {{observation}}{{listing}}\n\n{_TURN}",
        listing="\nThe admissible actions are: [{commands}].",
        item="'{command}'",
        separator="\n ",
        instructions=_TURN,
    ),
}


def load_prompt(spec: str | Mapping[str, Any]) -> Prompt:
    """A prompt by name, or by its templates.

    Raises:
        UserError: for an unknown name, template or field.
    """
    if isinstance(spec, str):
        if spec not in PROMPTS:
            raise UserError(f"ALFWorld has no prompt '{spec}'{nearest(spec, PROMPTS)}")
        return PROMPTS[spec]
    try:
        prompt = Prompt.model_validate(dict(spec))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        near = nearest(name, Prompt.model_fields) if first["type"] == "extra_forbidden" else ""
        raise UserError(f"ALFWorld's option 'prompt', template '{name}': {first['msg'].lower()}{near}") from error
    fields = {"first": _FIELDS, "later": _FIELDS, "listing": {"commands": ""}, "item": {"command": ""}}
    for name, known in fields.items():
        try:
            getattr(prompt, name).format(**known)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            places = ", ".join(f"{{{each}}}" for each in known)
            raise UserError(
                f"ALFWorld's option 'prompt', template '{name}' cannot be filled in ({error}); it may hold {places}, and any "
                "other brace doubled"
            ) from error
    return prompt


def command_of(message: str) -> str:
    """The last `<action>…</action>` of a message, or the message itself; in lower case, as all commands are."""
    message = message.lower()
    end = message.rfind(CLOSE)
    start = message.rfind(OPEN, 0, end) if end >= 0 else -1
    return (message[start + len(OPEN) : end] if start >= 0 else message).strip()


def well_formed(message: str) -> bool:
    """Whether a message thinks and then acts, both in complete tags, and holds no Chinese (verl-agent's rule)."""
    at = 0
    for tag in _IN_ORDER:  # one expression for all of them would take the cube of the length of a message full of tags
        if (found := message.find(tag, at)) < 0:
            return False
        at = found + len(tag)
    return _HAN.search(message) is None
