"""How an agent is shown an episode: a view makes the messages of the next prompt out of a record of what happened so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from pydantic import NonNegativeInt

from agentdistill.environment import Answer
from agentdistill.signals.registry import Registry
from agentdistill.verbs import callable_as_verb

Messages = list[dict[str, str]]
PLAN_INTRO = "A plan that solves this task (only you can see it):"


@dataclass(slots=True)
class Record:
    """An episode so far, up to where the agent speaks.

    Attributes:
        system: the environment's system prompt, or an empty string.
        answers: what the environment answered to the reset and to each message: one more than there are messages.
        said: the agent's messages, replayed ones included.
    """

    system: str
    answers: list[Answer]
    said: list[str] = field(default_factory=list)

    @property
    def task(self) -> str:
        """The goal in words; the first observation where the environment gives none."""
        first = self.answers[0]
        return first.bare if first.goal is None else first.goal

    @property
    def opens_with_task(self) -> bool:
        """Whether the first observation stands for the task, so that it need not be shown beside it."""
        return self.answers[0].goal is None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What was seen before each message, bare, and what the environment took the message for."""
        after = zip(self.said, self.answers[1:], strict=True)
        taken = [text if answer.command is None else answer.command for text, answer in after]
        return [(seen.bare, command) for seen, command in zip(self.answers, taken, strict=False)]

    @property
    def now(self) -> Answer:
        """What is to be answered."""
        return self.answers[-1]

    @property
    def conversation(self) -> Messages:
        """Everything, in the environment's and the agent's own words."""
        out = opening(self.system, self.answers[0].observation)
        for text, answer in zip(self.said, self.answers[1:], strict=True):
            out += [{"role": "assistant", "content": text}, {"role": "user", "content": answer.observation}]
        return out


class View(Protocol):
    """What the engine asks of a view. Subclass it and override `forms`.

    Attributes:
        extends: whether the first form is always the one before, the agent's message and one more; it is then appended to the
            ids as they were sampled. Otherwise each turn is a context of its own.
    """

    extends: ClassVar[bool] = False

    def forms(self, record: Record) -> Iterator[Messages]:
        """The messages that the agent is to answer, best first and then ever shorter; the first form that fits is shown."""
        ...


VIEWS: Registry[View] = Registry("view")


@VIEWS.register("chat")
@dataclass(frozen=True, kw_only=True)
class Conversation(View):
    """The whole conversation, turn by turn."""

    extends = True

    def forms(self, record: Record) -> Iterator[Messages]:
        """See `View.forms`."""
        yield record.conversation


CHAT = Conversation()


@VIEWS.register("window")
@dataclass(frozen=True, kw_only=True)
class Window(View):
    """One message a turn, in the order that TCOD (arXiv 2604.24005) and verl-agent have: the task, how many steps were taken,
    the last of them, the present observation, the admissible commands, and how to answer.

    Where that is too long there are fewer pairs, then neither commands nor notes.

    Attributes:
        pairs: how many of the last (observation, action) pairs are shown.
        admissible: list the admissible commands, where the environment tells them.
    """

    pairs: NonNegativeInt = 2
    admissible: bool = True

    def forms(self, record: Record) -> Iterator[Messages]:
        """See `View.forms`."""
        lists = self._lists(record.now)
        for pairs in range(min(self.pairs, len(record.said)), -1, -1):
            yield opening(record.system, _told(record, pairs, lists))
        if lists:
            yield opening(record.system, _told(record, 0, []))

    def _lists(self, now: Answer) -> list[str]:
        """What stands beside the present observation only."""
        lists = [now.notes.strip()] if now.notes else []
        if self.admissible and now.admissible:
            lists.append(f"Admissible actions: {', '.join(now.admissible)}.")
        return lists


def _told(record: Record, pairs: int, lists: Sequence[str]) -> str:
    """An episode in one message."""
    taken = len(record.said)
    parts = [f"Your task: {record.task.strip()}", f"Steps taken so far: {taken}."]
    for step, (seen, command) in list(enumerate(record.pairs, 1))[taken - pairs :]:
        before = "" if step == 1 and record.opens_with_task else f"Before step {step} you saw: {seen.strip()}\n"
        parts.append(f"{before}Step {step} was: {command.strip()}")
    if taken or not record.opens_with_task:
        parts.append(f"Now you see: {record.now.bare.strip()}")
    return "\n\n".join([*parts, *lists, *filter(None, [record.answers[0].instructions])])


def load(spec: object) -> View:
    """A view from a name, or from a mapping such as `{"kind": "window", "pairs": 4}`.

    Raises:
        UserError: for an unknown kind or setting, or a wrong type.
    """
    return VIEWS.resolve(spec)()


def opening(system: str, text: str) -> Messages:
    """A system message, if there is one, and a user's."""
    first = {"role": "user", "content": text}
    return [{"role": "system", "content": system}, first] if system else [first]


def windowed(messages: Sequence[dict[str, str]], turns: int) -> Messages:
    """Of a conversation: the system message and the task, then the last `turns` (action, observation) pairs."""
    head = 2 if messages[0]["role"] == "system" else 1
    tail = messages[head:]
    return [*messages[:head], *tail[max(0, len(tail) - 2 * turns) :]]


def with_plan(messages: Sequence[Mapping[str, str]], plan: str) -> list[dict[str, Any]]:
    """The messages with the plan under the first of the user's, as a teacher with privileged context sees them."""
    out = [dict(m) for m in messages]
    first = next(m for m in out if m["role"] == "user")
    first["content"] = f"{first['content']}\n\n{PLAN_INTRO}\n{plan}"
    return out


callable_as_verb(__name__)
