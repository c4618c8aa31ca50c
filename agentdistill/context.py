"""An episode as a model sees it: what a view shows, as ids, within a budget. Rollouts and demonstrations share it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from agentdistill.chat import Chat, Prompt
from agentdistill.environment import Answer
from agentdistill.view import Messages, Record, View, windowed, with_plan


@dataclass(slots=True)
class Context:
    """The context of one episode.

    Args:
        limit: tokens that it may have, the next message included, for which at least one is kept free.
        window: turns of a conversation that are kept where it is full (the task always is); None: it is not windowed.
        plan: what only the teacher is shown.

    Attributes:
        record: what happened so far.
        ids: everything the next message follows.
        prompt: the part of it that is new, or all of it where it is `fresh`.
        teacher_prompt: of a fresh prompt, the ids with the plan in them.
        windowed: how many prompts were not shown in their best form.
    """

    chat: Chat
    view: View
    limit: int
    window: int | None = None
    plan: str | None = None
    record: Record = field(default_factory=lambda: Record("", []))
    ids: list[int] = field(default_factory=list)
    prompt: Prompt = field(default_factory=lambda: Prompt([], fresh=True))
    teacher_prompt: list[int] | None = None
    windowed: int = 0

    def begin(self, system: str, first: Answer) -> bool:
        """Show the first observation; False where it leaves no room for a message."""
        self.record = Record(system, [first])
        return self._show(None)

    def extend(self, ids: Sequence[int], text: str, answer: Answer) -> bool:
        """Take up a message, as sampled, and show what answered it; False where no form of it leaves room for a message."""
        self.ids = [*self.ids, *ids]
        self.record.said.append(text)
        self.record.answers.append(answer)
        return self._show(ids)

    def _show(self, said: Sequence[int] | None) -> bool:
        room = self.limit - 1
        for place, messages in enumerate(self._forms()):
            if any(self.chat.surely_longer(m["content"], room) for m in messages):
                continue  # without encoding megabytes
            if said is not None and place == 0 and self.view.extends:
                prompt = self.chat.bridge(messages[:-1], said, messages[-1]["content"])
            else:
                prompt = Prompt(self.chat.start(messages), fresh=True)
            ids = [*([] if prompt.fresh else self.ids), *prompt.ids]
            if len(ids) <= room:
                self.ids, self.prompt, self.teacher_prompt = ids, prompt, None
                self.windowed += place > 0
                if prompt.fresh and self.plan is not None:
                    self.teacher_prompt = self.chat.start(with_plan(messages, self.plan))
                return True
        return False

    def _forms(self) -> Iterator[Messages]:
        yield from self.view.forms(self.record)
        if self.view.extends and self.window is not None:
            yield windowed(self.record.conversation, self.window)
