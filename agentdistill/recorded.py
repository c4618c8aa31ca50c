"""Recorded demonstrations: a JSON-lines file of action lists, each played in the real environment before it is imitated.

    {"seed": 3, "actions": ["open fridge", "take milk"]}
    {"task_id": "pick-12", "env": "agentdistill/ALFWorld-v0", "actions": ["go to desk 1"], "success": true}

A row names its task by `seed`, by `task_id`, or by both. `env` is needed only in a file of several environments. What a row
says of the episode beside its actions is held against what the environment says: `success`, and `observations` (after each
action, or the first one and those).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentdistill.environment import EnvironmentFault
from agentdistill.episode import Episode, Play, episode
from agentdistill.errors import UserError, nearest
from agentdistill.faults import one_line
from agentdistill.pool import EnvPool

FIELDS = ("env", "seed", "task_id", "actions", "observations", "success")


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file, with its line number; `seed` or `task_id` may be None, not both."""

    line: int
    actions: list[str]
    seed: int | None = None
    task_id: str | None = None
    observations: list[str] | None = None
    success: bool | None = None
    env: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """The action lists that win, by task seed, and what became of the others.

    Attributes:
        unusable: a sentence for each row that does not win, with its line.
        elsewhere: how many rows are of other environments, or of no task of the split.
    """

    actions: dict[int, list[str]] = field(default_factory=dict)
    unusable: list[str] = field(default_factory=list)
    elsewhere: int = 0

    def __str__(self) -> str:
        parts = [f"{len(self.actions)} tasks have a recorded demonstration"]
        if self.unusable:
            parts.append(f"{len(self.unusable)} rows cannot be used, the first: {self.unusable[0]}")
        if self.elsewhere:
            parts.append(f"{self.elsewhere} rows are of other environments, or of no task of the split")
        return "; ".join(parts)


def read_records(path: str | Path) -> list[Record]:
    """The rows of a file.

    Raises:
        UserError: when it cannot be read or has no row, or for a row that is not as it should be, by its line number.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise UserError(f"the recorded demonstrations '{path}' cannot be read: {reason}") from error
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                found.append(_record(number, json.loads(line)))
            except ValueError as error:
                raise UserError(f'\'{path}\', line {number}: {error}; a row is {{"seed": 3, "actions": ["…"]}}') from error
    if not found:
        raise UserError(f"the recorded demonstrations '{path}' hold no row")
    return found


def usable(records: Sequence[Record], pool: EnvPool, seeds: Sequence[int], max_turns: int, origin: str = "") -> Recorded:
    """Play the records of an environment's tasks and keep those that win within `max_turns`; the first one of a task counts.

    Args:
        seeds: of the tasks that demonstrations are wanted of; rows of others are passed over. Rows without a seed are looked
            for among them by starting task after task, which takes as long as that takes.
        origin: what errors call the file.

    Raises:
        UserError: when none is usable.
    """
    ours = [each for each in records if each.env is None or each.env.rpartition(":")[2] == pool.env_id.rpartition(":")[2]]
    known, wanted = set(seeds), {str(each.task_id) for each in ours if each.seed is None}
    places = dict[str, int]()
    pool.play(_look(seed, wanted, places) for seed in seeds if not wanted <= places.keys())
    tasks = [(each, places.get(str(each.task_id)) if each.seed is None else each.seed) for each in ours]
    played = [(each, seed) for each, seed in tasks if seed is not None and seed in known]
    faults = pool.play(_check(each, seed, max_turns) for each, seed in played)
    out = Recorded(elsewhere=len(records) - len(played))
    for (each, seed), fault in zip(played, faults, strict=True):
        if fault:
            out.unusable.append(f"line {each.line}: {fault}")
        else:
            out.actions.setdefault(seed, each.actions)
    if not out.actions:
        first = (
            f": {out.unusable[0]}" if out.unusable else f", since all {out.elsewhere} rows are of other environments or tasks"
        )
        raise UserError(f"no recorded demonstration in '{origin}' can be used in '{pool.env_id}'{first}")
    return out


def with_expert(pool: EnvPool, seeds: Sequence[int], recorded: Recorded) -> list[int]:
    """Those of the tasks that can be imitated: all where the environment has an expert of its own, else the recorded ones.

    Whether it has is asked at the first task without a record.
    """
    unrecorded = next((seed for seed in seeds if seed not in recorded.actions), None)
    if unrecorded is None:
        return list(seeds)
    (has,) = pool.play([_has_expert(unrecorded)])
    return list(seeds) if has else [seed for seed in seeds if seed in recorded.actions]


def _has_expert(seed: int) -> Play[bool]:
    yield "reset", (seed,)
    return (yield "expert_action", ()) is not None


def _look(seed: int, wanted: set[str], places: dict[str, int]) -> Play[None]:
    try:
        answer = yield "reset", (seed,)
    except EnvironmentFault:  # some other task's
        return
    if answer.task_id in wanted:
        places.setdefault(answer.task_id, seed)


def _check(record: Record, seed: int, max_turns: int) -> Play[str]:
    """Why a record cannot be used, or an empty string."""
    try:
        done = yield from episode(seed, max_turns, record.actions)
    except EnvironmentFault as fault:
        return str(fault)
    return next(_differences(record, done), "")


def _differences(record: Record, done: Episode) -> Iterator[str]:
    if record.task_id not in (None, done.task_id):
        yield f"the task of seed {done.seed} is '{done.task_id}', and the row says '{record.task_id}'"
    said = record.observations or []
    for turn, (seen, told) in enumerate(zip(done.observations[-len(said) :] if said else [], said, strict=False)):
        if seen != told and len(done.actions) == len(record.actions):
            after = turn + len(record.actions) - len(said)
            place = f"after action {after + 1}" if after >= 0 else "at the start"
            yield f"{place} the environment says {_short(seen)}, and the row {_short(told)}"
    if len(done.actions) < len(record.actions):
        limit = "the episode is over" if done.ended else "the turn limit is reached"
        yield f"{limit} after {len(done.actions)} of its {len(record.actions)} actions"
    if record.success is True and not done.success:
        yield "the row says that it wins, and the environment does not"
    if not done.success:
        yield "it loses" if done.ended else f"its {len(done.actions)} actions do not end the episode"
    elif record.success is False:
        yield "the row says that it does not win, and the environment says that it does"


def _short(text: str) -> str:
    return repr(one_line(text, 80))


def _record(line: int, row: Any) -> Record:
    """A row, or a `ValueError` that says what is wrong with it."""
    if not isinstance(row, dict):
        raise ValueError("it is no mapping")
    for name in row:
        if name not in FIELDS:
            raise ValueError(f"it has an unknown field '{name}'{nearest(name, FIELDS)}")
    seed, actions, success = row.get("seed"), row.get("actions"), row.get("success")
    if seed is None and row.get("task_id") is None:
        raise ValueError("it names no task, by 'seed' or 'task_id'")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or seed < 0):
        raise ValueError(f"'seed' is {_short(repr(seed))}, not a whole number")
    for name in ("task_id", "env"):
        if row.get(name) is not None and not (isinstance(row[name], str) and row[name]):
            raise ValueError(f"'{name}' is {_short(repr(row[name]))}, not text")
    if not _texts(actions) or not actions:
        raise ValueError("'actions' is not a list of one or more texts")
    observations = row.get("observations")
    if observations is not None and not (_texts(observations) and len(observations) - len(actions) in (0, 1)):
        raise ValueError("'observations' is not a list of texts, one after each action, and perhaps the first one before them")
    if success is not None and not isinstance(success, bool):
        raise ValueError(f"'success' is {_short(repr(success))}, not true or false")
    return Record(line, actions, seed, row.get("task_id"), observations or None, success, row.get("env"))


def _texts(value: Any) -> bool:
    """Whether it is a list of texts, none with half of a surrogate pair in it."""
    return isinstance(value, list) and all(isinstance(each, str) and each.isascii() | _whole(each) for each in value)


def _whole(text: str) -> bool:
    return text.encode("utf-8", "ignore").decode() == text
