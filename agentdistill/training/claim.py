"""Whose a run folder is: one experiment's, from its first finished stage on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from agentdistill import config as config_module
from agentdistill.config import Experiment
from agentdistill.durable import digest
from agentdistill.engines.registry import is_url
from agentdistill.engines.section import RaySection
from agentdistill.errors import UserError
from agentdistill.training.integrity import RESTORE
from agentdistill.training.journal import write_atomic
from agentdistill.training.progress import Progress, untouched

# What a stage or a verb leaves behind. A tokenizer alone is no result: it is made in seconds, and made again.
RESULTS = ("checkpoints/[!.]*", "teacher", "student", "final", "evals/*.json", "store/*.parquet", "eval.json", "summary.json")

# Where environments and servers are, and where numbers are shown, changes no result, so a run may go on with others than it
# began with. A teacher's server may be another one, too, but not another kind of teacher. How many processes train is no
# field at all (see `agentdistill.cluster`), and how many actors play and score none that counts: both change rounding only, as
# the number of a GPU's blocks would, and a cluster that is smaller by now is no reason to begin again.
FREE = (
    "env.workers", "env.timeout", "env.recycle", "env.memory", "log.backends", "log.project", "log.mode",
    "engine.url", "engine.timeout", "engine.exchange", "engine.cache", "engine.transfer", "engine.address",
    "train.activation_checkpointing", "train.rank_timeout", *(f"engine.ray.{name}" for name in RaySection.model_fields),
)  # fmt: skip


def claim(folder: Path, config: Experiment, stored: Progress | None, *, resume: bool) -> Progress:
    """The progress to go on from; `experiment.yaml` is this experiment afterwards.

    A folder without results is nobody's: a first start that failed does not stand in the way of the corrected one.

    Args:
        stored: what `progress.json` holds.
        resume: whether the user asked to go on with what is there.

    Raises:
        UserError: when the folder holds results, and is not to be resumed or not this experiment's; nothing is changed.
    """
    text, path = config_module.dump(config), folder / "experiment.yaml"
    ours = hashlib.sha256(text.encode()).hexdigest()
    if not _has_results(folder, stored):
        if stored is not None and resume and stored.experiment == ours and path.exists() and digest(path) == ours:
            return stored
        (folder / "meta.json").unlink(missing_ok=True)
        write_atomic(path, text)
        return untouched(ours)
    if not resume:
        raise UserError(f"'{folder}' already holds a run; go on with --resume, or choose another --out")
    if stored is None:
        raise UserError(f"'{folder}' holds results, and its progress.json is missing; {RESTORE}")
    if not path.exists():
        if stored.experiment != ours:
            raise UserError(f"'{folder}' holds another experiment's results, and its experiment.yaml is missing; {RESTORE}")
        write_atomic(path, text)
    elif digest(path) != stored.experiment:
        raise UserError(f"'{path}' was changed after the run had begun; {RESTORE}")
    elif difference := _first_difference(config_module.load_experiment(path), config):
        raise UserError(f"'{folder}' holds a run of another experiment ({difference}); choose another --out")
    return stored


def _has_results(folder: Path, stored: Progress | None) -> bool:
    if stored is not None and (stored.checkpoint is not None or stored.done.keys() - {"tokenizer"}):
        return True
    return any(next(folder.glob(pattern), None) is not None for pattern in RESULTS)


def _first_difference(a: Experiment, b: Experiment) -> str:
    """The first field that differs and decides results; empty where none does."""

    def flat(value: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(value, dict):
            return {prefix: value}
        return {k: v for name, item in value.items() for k, v in flat(item, f"{prefix}.{name}".lstrip(".")).items()}

    def moved(name: str) -> bool:
        return name == "engine.teacher" and all(is_url(str(each.get(name))) for each in (old, new))

    old, new = flat(a.model_dump(mode="json")), flat(b.model_dump(mode="json"))
    names = (k for k in [*old, *new] if k not in FREE and old.get(k) != new.get(k) and not moved(k))
    return next((f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in names), "")
