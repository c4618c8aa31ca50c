"""The tasks that a run reports on: the first of a split, or those of a stored panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentdistill.config import Experiment
from agentdistill.errors import UserError
from agentdistill.evaluation import PANEL
from agentdistill.panel import TaskPanel, given, load_panel, look_at
from agentdistill.pool import EnvPool
from agentdistill.training.journal import write_atomic


def panel_of(config: Experiment) -> TaskPanel | None:
    """The panel that an experiment names, or None.

    Raises:
        UserError: when there is no such file, it is no panel, or the experiment says other tasks than it does.
    """
    section = config.eval
    if not section.panel:
        return None
    found = load_panel(section.panel)
    said: dict[str, Any] = {name: getattr(section, name) for name in ("split", "tasks") if name in section.model_fields_set}
    given(found, {"env": config.env.id, "options": config.env.options, **said})
    return found


def reported_split(config: Experiment) -> str:
    """The split that the reported tasks are of."""
    found = panel_of(config)
    return config.eval.split if found is None else found.split


def reported_tasks(config: Experiment, chosen: Mapping[str, Sequence[int]]) -> list[int]:
    """Seeds of the reported tasks.

    Args:
        chosen: the first seeds of each split that is used (see `check.look_up`).
    """
    found = panel_of(config)
    return list(chosen[config.eval.split][: config.eval.tasks]) if found is None else found.seeds


def reported_name(config: Experiment) -> str:
    """What the reported tasks are, in words."""
    found = panel_of(config)
    return f"{config.eval.split} tasks" if found is None else f"panel {found.name}"


def keep_panel(config: Experiment, pool: EnvPool, folder: Path) -> None:
    """Hold the environment and a run's earlier sessions to the panel that it reports on, if any; a copy goes to the folder.

    Raises:
        UserError: when the environment's tasks are no longer the panel's, or the run began with another panel.
    """
    found, path = panel_of(config), folder / PANEL
    if found is None:
        return
    if path.is_file() and (first := load_panel(path)).sha256 != found.sha256:
        raise UserError(
            f"the run began with panel '{first.name}' ({first.sha256[:12]}), and '{config.eval.panel}' holds other tasks "
            f"({found.sha256[:12]}) now; name '{path}' as eval.panel, or start over with another --out"
        )
    found.require_same(look_at(pool, found.seeds))
    write_atomic(path, found.text())
