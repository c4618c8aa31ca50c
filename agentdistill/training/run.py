"""A run from experiment file to summary: make the models, evaluate, distil, evaluate, report.

The stages' names stand in `progress.json` once they are finished; a resumed run skips those and takes up the one that was cut.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentdistill.config import OWN_WEIGHTS, Experiment
from agentdistill.intervals import Rate
from agentdistill.policies.base import TeacherScorer
from agentdistill.policies.load import is_tiny
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.training.check import REFERENCE, check_pair, require_given
from agentdistill.training.journal import write_atomic
from agentdistill.training.session import Session
from agentdistill.training.teachers import DECAY, MovingAverage, frozen_copy


@dataclass(slots=True)
class Run:
    """A finished run: its folder, and what `summary.json` holds."""

    folder: Path
    summary: dict[str, Any] = field(default_factory=dict)


def train(config: Experiment, folder: Path, *, resume: bool = False, say: Callable[[str], None] | None = None) -> Run:
    """Run an experiment to its end and write `summary.json` and the report.

    Args:
        folder: where the run is kept.
        resume: go on with a run that was stopped, to the same numbers it would have had.
        say: takes progress lines; the terminal by default.

    Raises:
        UserError: for whatever the user can mend.
    """
    session = Session(config, folder, resume=resume, say=say)
    try:
        return _run(session)
    finally:
        session.close()


def _run(session: Session) -> Run:
    config = session.config
    session.require_tasks()
    if config.teacher is not None and config.teacher.privileged:
        session.require_plan()
    if config.sampling.temperature != 1 or config.sampling.top_p != 1 or config.sampling.top_k:
        session.say(
            "note: losses are at temperature 1 without truncation, and sampling is not: training is a little off policy"
        )
    models = _models(session)
    rates: dict[str, Rate] = {}
    scorers = _scorers(session, models)
    if models.teacher is not None and config.eval.tasks and config.teacher is not None and not config.teacher.own:
        rates["teacher"] = session.measure("teacher", models.teacher)
    rates["before"] = session.measure("before", models.student)
    average = None
    if models.teacher is not None and config.teacher is not None and config.teacher.model == "ema":
        average = MovingAverage(models.teacher, DECAY if config.teacher.decay is None else config.teacher.decay)
    session.distil(models.student, scorers["teacher"], scorers["reference"], average)
    rates["after"] = session.measure("after", models.student)
    return _summarise(session, rates)


@dataclass(frozen=True, slots=True)
class _Models:
    """Who a run needs: the student, and the models that score it."""

    student: CausalLM
    teacher: CausalLM | None
    reference: CausalLM | None


def _models(session: Session) -> _Models:
    """Everybody, warmed up. All are loaded, and held against the student, before any is trained."""
    config = session.config
    sections = [s for s in (config.student, config.teacher) if s is not None]
    tokenizer = session.tokenizer() if any(is_tiny(s.model) for s in sections) else None
    student = session.load("student", config.student, tokenizer)
    teacher, reference = None, None
    if config.teacher is not None and not config.teacher.own:
        teacher = session.load("teacher", config.teacher, tokenizer)
        check_pair(student, teacher, config.env.max_context)
        if teacher.tokenizer.chat_template != student.tokenizer.chat_template:
            session.say(f"note: teacher '{teacher.name}' was made for another chat template than the student's")
    section = config.reference if session.method.needs & REFERENCE else None
    if config.reference is not None and section is None:
        session.say(f"note: method {config.method!r} reads no reference, so '{config.reference.model}' is not loaded")
    if section is not None and section.model not in OWN_WEIGHTS:
        reference = session.load("reference", section, tokenizer)
        check_pair(student, reference, config.env.max_context, "reference")
    if teacher is not None and config.teacher is not None:
        session.warm_up("teacher", config.teacher, teacher)
    session.warm_up("student", config.student, student)
    if config.teacher is not None and teacher is None:
        teacher = student if config.teacher.model == "live" else frozen_copy(student, config.teacher.model)
    if section is not None and reference is None:
        reference = frozen_copy(student, section.model)
    return _Models(student, teacher, reference)


def _scorers(session: Session, models: _Models) -> dict[str, TeacherScorer | None]:
    """Teacher and reference as scorers that give what the method needs of them."""
    out: dict[str, TeacherScorer | None] = {}
    for role, lm in (("teacher", models.teacher), ("reference", models.reference)):
        scorer = None
        if lm is not None:
            scorer = TransformersScorer(lm, budget=session.config.train.token_budget, live=lm is models.student)
            if lm is models.student:
                scorer.name = "live"
            if role == "reference":
                scorer.name = f"reference:{scorer.name}"  # in the store, beside a teacher that may be the same model
            require_given(session.method, role, scorer)
        out[role] = scorer
    return out


def _summarise(session: Session, rates: dict[str, Rate]) -> Run:
    from agentdistill.report import report

    order = [label for label in ("before", "after", "teacher") if label in rates]
    summary: dict[str, Any] = {label: rates[label].as_dict() for label in order}
    summary |= {"seconds": round(session.journal.seconds, 1), "report": str(session.folder / "report" / "index.html")}
    # Before the report: it reads the summary, and if it fails the run's results must not be lost with it.
    write_atomic(session.folder / "summary.json", json.dumps(summary, indent=1))
    report([session.folder])
    session.journal.finish("summary")
    for label in order:
        session.say(f"{label:8} success {rates[label]}")
    session.say(f"report   {summary['report']}  ({summary['seconds']:.0f} s)")
    return Run(session.folder, summary)
