"""An evaluation as numbers: success and score with their intervals, as wholes and by task type; kept, and read again."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentdistill.compare import by_task
from agentdistill.errors import StoreError, UserError
from agentdistill.intervals import Mean, Rate, average, clustered
from agentdistill.store import Store
from agentdistill.trajectory import Trajectory

FILE = "eval.json"
PANEL = "panel.json"
OWN = ("eval", "eval-after", "rollout", "imported")
"""Batches that a folder without further words is about, the first of them that there is."""
_SETTINGS = ("env", "split", "temperature", "samples", "max_turns", "max_tokens", "max_context", "view", "panel")


@dataclass(frozen=True, slots=True)
class Result:
    """Success, and the mean of the episodes' summed rewards. `None` where it was not kept."""

    success: Rate
    reward: Mean | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the rate's own fields, and `reward`."""
        return {**self.success.as_dict(), "reward": None if self.reward is None else self.reward.as_dict()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Result:
        """What `as_dict` gave, or a record from before rewards were kept."""
        n = int(stored["n"])
        rate = Rate(float(stored["success"]), float(stored["low"]), float(stored["high"]), n, int(stored.get("tasks", n)))
        score = stored.get("reward")
        return cls(rate, None if score is None else Mean.from_dict(score))

    def __str__(self) -> str:
        return f"success {self.success}" + (f", reward {self.reward}" if self.reward is not None else "")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation.

    Attributes:
        name: the folder, or `FOLDER:BATCH`.
        result: over all tasks.
        by_type: by task type, in order of their names; empty where there are not two.
        stop_reasons: how often each occurred, most frequent first.
        settings: what it was played with, as far as that was kept: `model`, `env`, `split`, `temperature`, `samples`,
            `max_turns` …, and `panel`, its name and digest.
    """

    name: str
    result: Result
    by_type: dict[str, Result]
    stop_reasons: dict[str, int]
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, played: Sequence[Trajectory], settings: Mapping[str, Any] | None = None) -> Evaluation:
        """Of what was played; episodes of one environment, options and seed are one task."""
        kinds = sorted({t.task_type for t in played})
        types = {kind: _result([t for t in played if t.task_type == kind]) for kind in kinds if len(kinds) > 1}
        return cls(name, _result(played), types, stop_reasons(played), dict(settings or {}))

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the name is where it lies."""
        types = {kind: each.as_dict() for kind, each in self.by_type.items()}
        return {
            **self.settings, **self.result.as_dict(), "stop_reasons": self.stop_reasons,
            **({"by_type": types} if types else {}),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, name: str, stored: Mapping[str, Any]) -> Evaluation:
        """What `as_dict` gave.

        Raises:
            KeyError, TypeError, AttributeError: when it is not that.
        """
        own = {*Rate.__dataclass_fields__, "reward", "stop_reasons", "by_type"}
        types = {str(kind): Result.from_dict(each) for kind, each in stored.get("by_type", {}).items()}
        reasons = {str(reason): int(count) for reason, count in stored.get("stop_reasons", {}).items()}
        return cls(name, Result.from_dict(stored), types, reasons, {k: v for k, v in stored.items() if k not in own})

    @property
    def lines(self) -> list[str]:
        """What a reader wants of it: what was played, the numbers, those of each type, and how episodes ended."""
        about = {key: value for key, value in self.settings.items() if key != "panel" and value not in (None, "", {})}
        panel = self.settings.get("panel")
        out = [self.name, "  " + ", ".join(f"{key} {_shown(value)}" for key, value in about.items())] if about else [self.name]
        if isinstance(panel, dict):
            out.append(f"  panel {panel.get('name')} ({str(panel.get('sha256'))[:12]})")
        out.append(f"  {self.result}")
        out += [f"    {kind or 'no type'}: {each}" for kind, each in self.by_type.items()]
        ended = ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in self.stop_reasons.items())
        return [*out, f"  episodes ended by: {ended}"] if ended else out


def stop_reasons(trajectories: Sequence[Trajectory]) -> dict[str, int]:
    """How often each stop reason occurred, most frequent first."""
    counts = Counter(str(t.stop_reason) for t in trajectories)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def differences(first: Evaluation, second: Evaluation) -> list[str]:
    """What two evaluations were played with and do not share, a sentence each; what one does not know is passed over."""
    out = []
    for name in _SETTINGS:
        a, b = (each.settings.get(name) for each in (first, second))
        if a is not None and b is not None and a != b:
            shown = (_shown(each.get("name", "") if isinstance(each, dict) and name == "panel" else each) for each in (a, b))
            out.append(
                f"{name} was {' for the first and '.join(shown)} for the second, so the difference may be due to that too"
            )
    return out


def load_eval(name: str | Path) -> Evaluation:
    """An evaluation that was kept, without playing anything.

        ad.load_eval("runs/eval")                      # what `agentdistill eval --out runs/eval` found
        ad.load_eval("runs/quickstart:eval-before")    # from the trajectories of a run

    Args:
        name: the folder of an `eval`, a `rollout` or a run (its evaluation after training), or `FOLDER:BATCH`.

    Raises:
        UserError: when there is no such folder or batch, or `eval.json` is damaged.
    """
    folder, batch = split_name(str(name))
    path = Path(folder) / FILE
    if path.is_file() and batch in ("", "eval"):
        try:
            found = Evaluation.from_dict(str(name), json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"'{path}' is damaged: it is no evaluation; '{folder}:eval' is read from the store without it"
            ) from error
        if found.result.reward is not None:
            return found
    return Evaluation.of(str(name), read_episodes(str(name)), settings_of(Path(folder), batch))


def read_episodes(name: str) -> list[Trajectory]:
    """The trajectories of an evaluation: `FOLDER:BATCH`, or the one that a folder is about (`OWN`).

    Raises:
        UserError: when there is no such folder, or it holds no evaluation.
    """
    folder, batch = split_name(name)
    store = open_run(folder)
    known = store.batches()
    chosen = batch or next((each for each in OWN if each in known), "")
    if not chosen:
        there = f"; it holds {', '.join(known[:4])}" if known else ""
        raise UserError(f"'{name}' holds no evaluation{there}; name a batch as FOLDER:BATCH")
    return store.read(chosen)


def split_name(name: str) -> tuple[str, str]:
    """Folder and batch of `FOLDER:BATCH`; the batch is empty where none is named."""
    folder, colon, batch = name.rpartition(":")
    return (name, "") if not colon or Path(name).is_dir() else (folder, batch)


def open_run(folder: str | Path) -> Store:
    """The store of a run, a rollout or an evaluation.

    Raises:
        UserError: when there is no such folder, or nothing of the kind in it.
    """
    path = Path(folder)
    if not path.is_dir():
        of, batch = split_name(str(folder))
        there = f"; name batch '{batch}' of '{of}' by --batch" if batch and Path(of).is_dir() else ""
        raise UserError(f"there is no run folder '{folder}'{there}")
    if not (path / "store").is_dir() and not (path / "experiment.yaml").is_file():
        raise UserError(f"folder '{folder}' holds no run: it has neither an experiment.yaml nor a store")
    return Store(path / "store")


@contextmanager
def others_remain(store: Store, batch: str | None) -> Iterator[None]:
    """Where all batches were asked for and one cannot be read, say beside it that the others still can.

    Args:
        batch: the one that was asked for; None: all.
    """
    try:
        yield
    except StoreError as error:
        if batch is not None or len(store.batches()) < 2:
            raise
        raise StoreError(f"{error}; the others can be read one at a time, by --batch") from error


def settings_of(folder: Path, batch: str = "") -> dict[str, Any]:
    """What a folder's evaluations were played with, as its `experiment.yaml` and `eval.json` say; empty where they do not."""
    from agentdistill import yamltext

    try:
        raw = yamltext.read((folder / "experiment.yaml").read_text(encoding="utf-8"))
        env, play, sampling = (raw.get(section) or {} for section in ("env", "eval", "sampling"))
    except (OSError, UnicodeDecodeError, UserError, AttributeError):
        return {}
    known: dict[str, Any] = {
        "env": env.get("id"), "split": play.get("split"), "samples": play.get("samples"),
        "temperature": play.get("temperature"), "max_turns": env.get("max_turns"), "max_tokens": sampling.get("max_tokens"),
        "max_context": env.get("max_context"), "view": env.get("view"),
    }  # fmt: skip
    if batch == "rollout" or (not batch and not (folder / FILE).is_file() and (folder / "store/rollout.parquet").is_file()):
        known["temperature"] = sampling.get("temperature")
    try:
        panel = json.loads((folder / PANEL).read_text(encoding="utf-8"))
        panel = {name: panel[name] for name in ("name", "sha256")}
    except (OSError, ValueError, KeyError, TypeError):
        panel = None
    return {key: value for key, value in {**known, "panel": panel}.items() if value is not None}


def _result(played: Sequence[Trajectory]) -> Result:
    tasks = list(by_task(played).values())
    rewards = [[t.reward for t in task] for task in tasks]
    finite = all(not math.isnan(value) for task in rewards for value in task)  # an imported episode may have none
    return Result(clustered([[t.success for t in task] for task in tasks]), average(rewards) if finite else None)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
