"""A task panel: a named, stored list of tasks that models are evaluated on, the same ones today and next year.

A panel knows what each of its tasks looked like when it was made. Where the environment answers otherwise now, be it another
version, another data folder or other options, the panel is refused: the rates would be of other tasks under an old name.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agentdistill import environment
from agentdistill.config import located
from agentdistill.durable import replace
from agentdistill.episode import Play
from agentdistill.errors import UserError
from agentdistill.modules import import_module
from agentdistill.pool import Answer, EnvPool, Workers
from agentdistill.verbs import callable_as_verb

VERSION = 1
MAKE = "`agentdistill panel ENV --out FILE` makes one"


@dataclass(frozen=True, slots=True)
class PanelTask:
    """One task: its seed, the environment's name for it and for its kind, and a digest of what is shown at its start."""

    seed: int
    task_id: str
    task_type: str
    start: str


@dataclass(frozen=True, slots=True)
class TaskPanel:
    """A list of tasks of one environment.

    Attributes:
        name: what it is called, in results too.
        env, options: the environment.
        split: where the tasks come from.
        tasks: in the order they are played.
    """

    name: str
    env: str
    split: str
    tasks: list[PanelTask]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """The tasks' seeds."""
        return [task.seed for task in self.tasks]

    @property
    def sha256(self) -> str:
        """Digest of what is played; the panel's name is no part of it."""
        tasks = [[task.seed, task.task_id, task.task_type, task.start] for task in self.tasks]
        text = json.dumps([self.env, sorted(self.options.items()), tasks], ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def lines(self) -> list[str]:
        """What a reader wants of it."""
        kinds = Counter(task.task_type for task in self.tasks)
        types = ", ".join(f"{kind or 'no type'} {count}" for kind, count in sorted(kinds.items()))
        options = f" with {self.options}" if self.options else ""
        out = [f"panel {self.name} ({self.sha256[:12]}): {len(self.tasks)} tasks of {self.env}{options}, split {self.split}"]
        return [*out, f"  by type: {types}"] if len(kinds) > 1 else out

    def text(self) -> str:
        """As JSON, a task a line."""
        head = {"panel": VERSION, "name": self.name, "env": self.env, "options": self.options, "split": self.split}
        lines = ",\n".join("  " + json.dumps(asdict(task)) for task in self.tasks)
        return f'{json.dumps({**head, "sha256": self.sha256}, indent=1)[:-2]},\n "tasks": [\n{lines}\n ]\n}}\n'

    def require_same(self, now: Sequence[PanelTask]) -> None:
        """Refuse when the environment's tasks are no longer what they were.

        Args:
            now: what the environment shows for the panel's seeds.

        Raises:
            UserError: naming the first task that differs, and how many do.
        """
        other = [(was, found) for was, found in zip(self.tasks, now, strict=True) if was != found]
        if not other:
            return
        was, found = other[0]
        what = next(name for name in PanelTask.__dataclass_fields__ if getattr(was, name) != getattr(found, name))
        said = (
            "begins with other words"
            if what == "start"
            else f"has {what} '{found.task_id if what == 'task_id' else found.task_type}'"
        )
        raise UserError(
            f"{len(other)} of {len(self.tasks)} tasks of panel '{self.name}' are not what they were: task '{was.task_id}' "
            f"(seed {was.seed}) of '{self.env}' {said} now; install the version and data that the panel was made with, or make "
            "another panel"
        )


def panel(
    env: str, *, out: str | Path, split: str = "test", tasks: int | None = None, per_type: int | None = None, name: str = "",
    options: Mapping[str, Any] | None = None, module: str = "", workers: int = 0,
) -> TaskPanel:  # fmt: skip
    """Make a panel of an environment's tasks and write it; nothing is played.

    Args:
        out: its file, which must not be there yet.
        split: where the tasks are taken from, in its order.
        tasks: how many; 200 by default, or the whole split where it has fewer and none are asked for.
        per_type: so many of each task type instead, of the whole split or of its first `tasks`.
        name: what it is called; the file's name by default.
        options, module, workers: as for `rollout`.

    Raises:
        UserError: for an unknown environment or split, one that has too few tasks, or an `out` that is there.
    """
    path = Path(out)
    if not str(out).strip() or path.is_dir() or path.exists():
        raise UserError(
            f"'{out}' cannot be the file of a new panel: it is there already, or names no file; choose another --out"
        )
    for word, value in (("tasks", tasks), ("per_type", per_type)):
        if value is not None and value < 1:
            raise UserError(f"{word} is {value}; a panel has 1 at least")
    if module:
        module = located(module, Path.cwd())
        import_module(module)
    pool = EnvPool(env, options, workers=Workers(workers, modules=[module] if module else []))
    try:
        seeds = list(environment.task_seeds(pool.prototype(), split))
        wanted = tasks if tasks is not None else len(seeds) if per_type else min(200, len(seeds))
        if not seeds or wanted > len(seeds):
            raise UserError(f"split '{split}' of '{env}' has {len(seeds)} tasks, fewer than the {wanted or 1} asked for")
        found = look_at(pool, seeds[:wanted])
        chosen = choose(found, per_type) if per_type else found
        made = TaskPanel(name or path.stem, env, split, chosen, dict(options or {}))
    finally:
        pool.close()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, made.text().encode())
    except OSError as error:
        raise UserError(f"'{path}' could not be written: {error.strerror}") from error
    return panel_from(json.loads(path.read_text(encoding="utf-8")), str(path))


def load_panel(path: str | Path) -> TaskPanel:
    """A stored panel.

    Raises:
        UserError: when there is no such file, it holds something else, or its tasks were changed by hand.
    """
    try:
        return panel_from(json.loads(Path(path).read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise UserError(f"there is no panel '{path}' ({error.strerror}); {MAKE}") from error
    except ValueError as error:
        raise UserError(f"'{path}' is no task panel, or a damaged one; {MAKE}") from error


def panel_from(stored: Any, where: str) -> TaskPanel:
    """A panel as its file has it.

    Raises:
        UserError: when it is none, a newer one, or its tasks are not those that it was made of.
    """
    try:
        version = stored["panel"]
        tasks = [
            PanelTask(int(each["seed"]), *(str(each[k]) for k in ("task_id", "task_type", "start"))) for each in stored["tasks"]
        ]
        found = TaskPanel(str(stored["name"]), str(stored["env"]), str(stored["split"]), tasks, dict(stored["options"]))
        digest = stored["sha256"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"'{where}' is no task panel, or a damaged one; {MAKE}") from error
    if version != VERSION:
        raise UserError(f"panel '{where}' is of version {version}, and this agentdistill reads {VERSION}; upgrade agentdistill")
    if not tasks or len({task.seed for task in tasks}) < len(tasks):
        raise UserError(f"panel '{where}' has no task, or one twice; {MAKE}")
    if digest != found.sha256:
        raise UserError(f"panel '{where}' was changed after it was made: its tasks have another SHA-256; {MAKE}")
    return found


def look_at(pool: EnvPool, seeds: Sequence[int]) -> list[PanelTask]:
    """What an environment shows at the start of each task; nothing is played.

    Raises:
        EnvironmentFault: when it fails at one of them.
    """
    return pool.play(_first_look(seed) for seed in seeds)


def choose(found: Sequence[PanelTask], per_type: int) -> list[PanelTask]:
    """The first `per_type` tasks of each type, in their order.

    Raises:
        UserError: when a type has fewer.
    """
    seen: Counter[str] = Counter()
    out = []
    for task in found:
        seen[task.task_type] += 1
        if seen[task.task_type] <= per_type:
            out.append(task)
    if few := {kind: count for kind, count in seen.items() if count < per_type}:
        kind, count = min(few.items(), key=lambda item: item[1])
        raise UserError(f"type '{kind}' has {count} tasks in that split, fewer than the {per_type} asked for of each type")
    return out


def _first_look(seed: int) -> Play[PanelTask]:
    first: Answer = yield "reset", (seed,)
    prompt: str = yield "system_prompt", ()
    shown = hashlib.sha256(f"{prompt}\x1f{first.observation}".encode("utf-8", "surrogatepass")).hexdigest()
    return PanelTask(seed, first.task_id, first.task_type, shown[:16])


def given(panel: TaskPanel, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that say something else than the panel does.

    Raises:
        UserError: naming the first of them.
    """
    for name, value in arguments.items():
        own = getattr(panel, name) if name != "tasks" else len(panel.tasks)
        if value is not None and value != own:
            raise UserError(f"{name} is {value!r}, and panel '{panel.name}' has {own!r}; drop it, or take another panel")


callable_as_verb(__name__)
