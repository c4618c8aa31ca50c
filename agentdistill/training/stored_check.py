"""Whether an experiment can be trained from the store that it names, as far as that shows before any episode is read."""

from __future__ import annotations

from pathlib import Path

from agentdistill.config import Experiment
from agentdistill.errors import UserError
from agentdistill.signals import Method
from agentdistill.training.stored import StoredEpisodes, require_enough
from agentdistill.training.stored_scorer import StoredScorer


def check_stored(config: Experiment, method: Method) -> StoredEpisodes | None:
    """The stored episodes of an experiment, where it trains on such, once they fit the rest of it.

    Raises:
        UserError: naming both sides of what does not fit.
    """
    section = config.rollouts
    if section is None:
        return None
    stored = StoredEpisodes(section, config.train.tasks, config.seed)
    kind = config.schedule.get("kind") if isinstance(config.schedule, dict) else config.schedule
    if kind != "none":
        raise UserError(
            f"schedule '{kind}' decides how episodes are played, and rollouts.store has played ones; drop one of them"
        )
    if config.mixed is not None:
        raise UserError("mixed plays episodes, and rollouts.store has played ones; drop one of the two")
    if (teacher := stored.scorers.get("teacher")) is not None:
        _check_teacher(config, stored, teacher)
        require_enough(method, stored.store, teacher)
    return stored


def _check_teacher(config: Experiment, stored: StoredEpisodes, scorer: StoredScorer) -> None:
    """Refuse stored scores of another model than the experiment's teacher (Lightning's teacher consistency)."""
    if config.teacher is None:
        return
    named, was = config.teacher.model, scorer.identity.model
    if named != was and Path(named).expanduser().resolve() != Path(was).expanduser().resolve():
        raise UserError(
            f"the experiment's teacher is '{named}', and scores '{scorer.name}' of the store {stored.store.path} were given by "
            f"'{was}'; name that one, or no teacher, or score the store with '{named}' under another name"
        )
