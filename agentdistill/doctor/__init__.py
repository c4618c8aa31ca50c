"""`agentdistill doctor`: looks an experiment, its models and the machine over before hours are spent on them.

A check is a function registered by name (`base.check`); they run in the order of the imports below.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agentdistill.config import Experiment
from agentdistill.doctor.base import CHECKS, Check, Cost, Diagnosis, Finding, Result, check, run_checks

# isort: split
# The order of the table: the machine, the experiment, its tokens, its numbers.
from agentdistill.doctor import versions as _versions  # noqa: F401

# isort: split
from agentdistill.doctor import machine as _machine  # noqa: F401

# isort: split
from agentdistill.doctor import cluster as _cluster  # noqa: F401

# isort: split
from agentdistill.doctor import world as _world  # noqa: F401

# isort: split
from agentdistill.doctor import tokens as _tokens  # noqa: F401

# isort: split
from agentdistill.doctor import parity as _parity  # noqa: F401

# isort: split
from agentdistill.doctor import reach as _reach  # noqa: F401
from agentdistill.doctor.patient import Patient
from agentdistill.errors import UserError
from agentdistill.verbs import callable_as_verb

__all__ = ["CHECKS", "Check", "Cost", "Diagnosis", "Finding", "Patient", "Result", "begin", "check", "diagnose", "run_checks"]


def diagnose(
    config: Experiment | None, folder: Path | None = None, *, trained: bool = False, cheap: bool = False,
    tell: Callable[[Result], None] = lambda _: None,
) -> Diagnosis:  # fmt: skip
    """Make every check of an experiment, or of the machine alone.

    Args:
        folder: where its run is, or will be.
        trained: whether models that the run has made by now are looked at.
        cheap: leave out what loads environments, tokenizers or models.
        tell: called with each result as it comes.
    """
    patient = Patient(config, folder, trained=trained)
    try:
        return run_checks(patient, [each for each in CHECKS.values() if not cheap or each.cost == "cheap"], tell)
    finally:
        patient.close()


def begin(config: Experiment, folder: Path, say: Callable[[str], None]) -> None:
    """The cheap checks that `train` makes before anything else; warnings are said.

    Raises:
        UserError: with the first failure.
    """
    found = run_checks(Patient(config, folder), [each for each in CHECKS.values() if each.at_start])
    for each in found.results:
        if each.outcome == "warn":
            say(f"doctor: {each.name}: {each.detail}")
    if found.failed:
        raise UserError(f"{found.failed[0].name}: {found.failed[0].detail}")


callable_as_verb(__name__)
