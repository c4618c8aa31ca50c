r"""Questions to be answered with tools: a list of functions, a list of tasks and a grader make an environment.

A message may hold tool calls (in Hermes format, or another of `agentdistill.toolcall`), a final answer in `\boxed{…}` or
`<answer>…</answer>`, or both. Calls are executed and answered; a final answer ends the episode, with reward 1 when it is
right and 0 when not.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
from gymnasium.error import ResetNeeded

from agentdistill import graders
from agentdistill import toolcall as formats
from agentdistill.environment import TextEnv, UnicodeText, pick_split
from agentdistill.errors import UserError, nearest
from agentdistill.faults import described
from agentdistill.find import Grader, ToolSpec, find_grader, find_tool
from agentdistill.tool import Tool, truncate_middle
from agentdistill.toolcall import DEFAULT_FORMAT, Call, ParsedMessage
from agentdistill.trajectory import ToolCall
from agentdistill.wording import sentence

SYSTEM_PROMPT = r"Answer the question, with the tools where they help. Give the final answer as \boxed{answer}."
_MAX_OBSERVATION = UnicodeText().max_length
# Position in the file modulo ten: 80 % train, 10 % valid, 10 % test, and appended tasks do not move the others.
_SPLIT_BY_INDEX = ("train",) * 8 + ("valid", "test")


class Task(pydantic.BaseModel):
    """One task; other fields of a row are ignored.

    Attributes:
        question: the first observation.
        answer: what the grader compares with.
        id: the task's name; its position where there is none.
        task_type: the kind of task, by which rates are told apart.
        split: `train`, `valid`, `test` or a name of your own; by position where there is none.
        plan: what a teacher with privileged context is shown.
        demonstration: an expert's messages in order, the one with the final answer last.
    """

    question: str
    answer: Any
    id: str | int | None = None
    task_type: str = ""
    split: str | None = None
    plan: str | None = None
    demonstration: list[str] = []


class ToolEnv(TextEnv):
    """A tool environment. `reset(seed=s)` gives task `s` modulo their number.

    Args:
        tools: functions, `Tool`s, or names of tools, with settings or without (see `agentdistill.find`).
        tasks: path of a JSON-lines file, or rows with the fields of `Task`.
        grade: `(answer, expected) -> bool`, or the name of one.
        max_turns: the episode is truncated after so many messages.
        system_prompt: replaces the default one. The tools' descriptions do not belong in it: the chat layer adds them
            in the form the model's template has for them.
        call_format: how the model writes calls: hermes, json, react, action, or another that was registered.
            Demonstrations may be written in this format or in Hermes'.

    Attributes:
        tools: list of `Tool`, each with its `schema`.
        call_format: the format's name.

    Raises:
        UserError: for tasks that cannot be read, two tools or tasks of one name, or a name of a tool, grader or format that
            nothing has.
    """

    tools: list[Tool]
    answer_hint = r"your final answer as \boxed{answer}"

    def __init__(
        self,
        tools: Sequence[ToolSpec] = (),
        tasks: str | os.PathLike[str] | Sequence[dict[str, Any]] = (),
        grade: Grader | str = graders.number,
        max_turns: int = 8,
        system_prompt: str | None = None,
        call_format: str = DEFAULT_FORMAT,
    ) -> None:
        if max_turns < 1:
            raise UserError(f"max_turns is {max_turns}; it must be at least 1")
        if isinstance(tools, str):
            raise UserError(f"tools is the text '{tools}'; write a list, as in [{tools}]")
        self.call_format = call_format
        self._format = formats.call_format(call_format)
        self.tools = [find_tool(item) for item in tools]
        self._by_name = {each.name: each for each in self.tools}
        self._open: dict[str, Tool] = {}  # as they are for the present episode
        if len(self._by_name) < len(self.tools):
            raise UserError(f"two tools have one name, among {', '.join(each.name for each in self.tools)}")
        self._tasks = self._load(tasks)
        self._grade = find_grader(grade)
        self._max_turns = max_turns
        self.system_prompt = SYSTEM_PROMPT if system_prompt is None else system_prompt
        self._task: Task | None = None
        self._turns = self._demonstrated = 0
        self._warned = False  # of a grader that raised

    def _load(self, tasks: str | os.PathLike[str] | Sequence[dict[str, Any]]) -> list[Task]:
        return load_tasks(tasks)

    def task(self, seed: int) -> Task:
        """The task that a seed names."""
        return self._tasks[seed % len(self._tasks)]

    def final_answer(self, message: ParsedMessage) -> str | None:
        """The answer that a message gives, which ends the episode, or None."""
        answer = graders.final_answer(message.text)
        return message.answer if answer is None else answer

    def draw_seed(self) -> int:
        """A seed for a reset without one, from the environment's own generator."""
        return int(self.np_random.integers(len(self._tasks)))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin task `seed`, or a random one; the observation is its question."""
        super().reset(seed=seed)
        self._close_tools()
        self._task = self.task(self.draw_seed() if seed is None else seed)
        self._turns = self._demonstrated = 0
        return self._task.question, {"task_id": str(self._task.id), "task_type": self._task.task_type}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Execute the message's tool calls, and grade its final answer if it has one.

        `info` carries `success`, `tool_calls`, in which a malformed call has an empty name and `ok` False, and
        `malformed_calls`, how many there were.
        """
        task = self._current()
        self._turns += 1
        self._follow_demonstration(action)
        message = self._format.parse(action)
        calls = [self._execute(call) for call in message.calls]
        calls += [ToolCall("", {}, f"Error: {error}", ok=False) for error in message.errors]
        parts = [self._format.format_response(call.result) for call in calls]
        answer = self.final_answer(message)
        success = answer is not None and self._graded(answer, task.answer)
        if answer is not None:
            parts.append("Correct." if success else "Wrong.")
        elif not parts:
            parts.append(f"Call a tool, or give {self.answer_hint}." if self.tools else f"Give {self.answer_hint}.")
        terminated = answer is not None
        truncated = not terminated and self._turns >= self._max_turns
        if terminated or truncated:
            self._close_tools()
        observation = truncate_middle("\n".join(parts), _MAX_OBSERVATION)
        info = {"success": success, "tool_calls": calls, "malformed_calls": len(message.errors)}
        return observation, float(success), terminated, truncated, info

    def task_seeds(self, split: str) -> Sequence[int]:
        """Positions of the tasks of a split: by the tasks' own field, else 80/10/10 by position.

        Raises:
            UserError: when there is no such split, or too few tasks to have it.
        """
        splits: dict[str, list[int]] = {name: [] for name in dict.fromkeys(_SPLIT_BY_INDEX)}
        for index, task in enumerate(self._tasks):
            splits.setdefault(task.split or _SPLIT_BY_INDEX[index % len(_SPLIT_BY_INDEX)], []).append(index)
        seeds = pick_split(splits, split, type(self).__name__)
        if not seeds:
            raise UserError(
                f"{type(self).__name__} has no task in split '{split}' (of {len(self._tasks)} tasks); give tasks the "
                f"field 'split', or at least {len(_SPLIT_BY_INDEX)} tasks without it"
            )
        return seeds

    def expert_action(self) -> str | None:
        """The first message of the demonstration that has not been played yet, whatever else was played."""
        demonstration = self._current().demonstration
        return self._spoken(demonstration[self._demonstrated]) if self._demonstrated < len(demonstration) else None

    def plan(self) -> str | None:
        """The task's plan, or its demonstration as text, or None."""
        task = self._current()
        return task.plan or "\n".join(map(self._spoken, task.demonstration)) or None

    def close(self) -> None:
        """End what the tools of the present episode keep, such as a sandbox session."""
        self._close_tools()
        super().close()

    def run_metadata(self) -> dict[str, Any]:
        """What the tools would have recorded, by their names."""
        return {each.name: about for each in self.tools if (about := each.metadata())}

    def _close_tools(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def _current(self) -> Task:
        if self._task is None:
            raise ResetNeeded("call reset() before anything else")
        return self._task

    def _execute(self, call: Call) -> ToolCall:
        name = call.name
        found = self._by_name.get(name)
        if found is not None:
            if name not in self._open:
                self._open[name] = found.episode()
            return self._open[name].call(call.arguments, call.positional)
        problem = f"Error: there is no tool '{name[:60]}'{nearest(name[:60], self._by_name)}"
        return ToolCall(name, call.arguments, problem, ok=False)

    def _graded(self, answer: str, expected: Any) -> bool:
        """Whether an answer is right. One that the grader cannot read is wrong: nonsense saves no model from its marks."""
        try:
            return bool(self._grade(answer, expected))
        except (ValueError, TypeError, ArithmeticError, LookupError) as error:
            if not self._warned:
                self._warned = True
                said = f"the grader raised {described(error)} on the answer {answer[:80]!r}, which counts as wrong"
                warnings.warn(f"{type(self).__name__}: {said} (said once)", RuntimeWarning, stacklevel=2)
            return False

    def _spoken(self, message: str) -> str:
        """A demonstration's message in the environment's call format."""
        if self.call_format == DEFAULT_FORMAT or self._format.parse(message).calls:
            return message
        found = formats.parse(message)
        if not found.calls:
            return message
        said = [found.text] if found.text else []
        return "\n".join([*said, *(self._format.format_call(call.name, call.arguments) for call in found.calls)])

    def _follow_demonstration(self, action: str) -> None:
        expected = self.expert_action()
        if expected is not None and (action.strip() == expected.strip() or self._same_calls(action, expected)):
            self._demonstrated += 1

    def _same_calls(self, action: str, expected: str) -> bool:
        """Whether two messages make the same tool calls, however they are spaced and whatever else they say."""
        calls = self._format.parse(expected).calls
        return bool(calls) and self._format.parse(action).calls == calls


def load_tasks(source: str | os.PathLike[str] | Sequence[dict[str, Any]]) -> list[Task]:
    """Tasks from a JSON-lines file or from rows; those without an `id` are named by their position.

    Raises:
        UserError: naming the file and line that cannot be read, an empty source, or an id that occurs twice.
    """
    if isinstance(source, str | os.PathLike):
        where, rows = os.fspath(source), _read_lines(Path(source))
    else:
        where, rows = "tasks", [(f"tasks[{index}]", row) for index, row in enumerate(source)]
    if not rows:
        raise UserError(f"{where} holds no tasks; each needs a 'question' and an 'answer'")
    tasks: list[Task] = []
    seen: set[str] = set()
    for place, row in rows:
        task = _read_task(place, row)
        task.id = str(len(tasks) if task.id is None else task.id)
        if task.id in seen:
            raise UserError(f"{place}: the id '{task.id}' occurs twice; ids must be unique")
        seen.add(task.id)
        tasks.append(task)
    return tasks


def _read_lines(path: Path) -> list[tuple[str, Any]]:
    """Each line's place and JSON value; blank lines are skipped."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(f"tasks file '{path}' cannot be read: {reason}") from error
    rows = []
    for count, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append((f"{path}:{count}", json.loads(line)))
            except ValueError as error:
                raise UserError(f"{path}:{count} is not JSON: {error}") from error
    return rows


def _read_task(place: str, row: Any) -> Task:
    try:
        return Task.model_validate(row)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            near = nearest(name, row) if isinstance(row, dict) else ""
            raise UserError(f"{place} has no field '{name}'{near}") from error
        raise UserError(f"{place}: {sentence(first, f'field {name!r}' if name else 'a task')}") from error
