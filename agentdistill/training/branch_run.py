"""Branching from a run's folder: another model plays its episodes on, as the run's experiment played them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agentdistill.branch import Branches, branch
from agentdistill.config import Experiment, load_experiment, located, parse_experiment
from agentdistill.errors import UserError
from agentdistill.modules import import_module
from agentdistill.policies.load import load_model
from agentdistill.training.replay_run import module_of
from agentdistill.training.session import Session
from agentdistill.trajectory import Trajectory


def branch_run(
    run: Path, folder: Path, parents: Sequence[Trajectory], policy: str, turn: int, *, temperature: float | None, module: str,
    workers: int, seed: int, say: Callable[[str], None] | None,
) -> Branches:  # fmt: skip
    """Branch from episodes of a run, and store what became of them below `folder` (see `api.branch`)."""
    config = _as_played(run, policy, module or module_of(run), workers, seed)
    session = Session(config, folder, resume=True, say=say)
    try:
        heat = parents[0].temperature if temperature is None and parents else temperature
        params = session.config.sampling.model_copy(update={"temperature": heat})
        found = branch(session.rollout(load_model(policy)), parents, turn, params, seed=seed)
        for difference in found.differences:
            session.say(str(difference))
        if not found.trajectories:
            raise UserError(
                f"none of the {len(parents)} episodes of '{run}' can be branched from after turn {turn}: {found.ended} were "
                f"over by then, and {len(found.differences)} do not repeat themselves"
            )
        session.store.write("parents", found.kept(parents))
        path = session.store.write("branch", found.trajectories)
        won, before = (sum(t.success for t in each) for each in (found.trajectories, found.kept(parents)))
        session.say(
            f"{won} of {len(found.trajectories)} branches succeeded, where {before} of their parents had; {found.ended} ended "
            f"by turn {turn}, and {len(found.differences)} did not repeat themselves; stored in {path}"
        )
        return found
    finally:
        session.close()


def _as_played(run: Path, policy: str, module: str, workers: int, seed: int) -> Experiment:
    """A run's experiment, to be played by another policy: its teacher, method and schedule mean nothing any more."""
    path = run / "experiment.yaml"
    if not path.is_file():
        raise UserError(f"'{run}' has no experiment.yaml, which says how its episodes were played; name a run, or a rollout")
    played = load_experiment(path).model_dump()
    fields: dict[str, Any] = {
        "seed": seed, "env": {**played["env"], "module": module, "workers": workers}, "sampling": played["sampling"],
        "student": {"model": policy}, "teacher": {"model": "initial", "privileged": True}, "method": "opd",
    }  # fmt: skip
    config = parse_experiment(fields, str(path))
    if config.env.module:
        import_module(located(config.env.module, Path.cwd()))
    return config
