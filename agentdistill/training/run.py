"""A run from experiment file to summary: make the models, evaluate, distil, evaluate, report.

The stages' names stand in `progress.json` once they are finished; a resumed run skips those and takes up the one that was cut.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentdistill.config import OWN_WEIGHTS, Experiment
from agentdistill.engines.registry import LanguageModel
from agentdistill.engines.sampler import EXACT
from agentdistill.engines.wire import TextOnly
from agentdistill.errors import UserError
from agentdistill.intervals import Rate
from agentdistill.policies.adapter import chosen
from agentdistill.policies.base import Request, SamplingParams, TeacherScorer
from agentdistill.policies.load import is_tiny
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.training.check import REFERENCE, check_pair, require_given
from agentdistill.training.journal import write_atomic
from agentdistill.training.panel import ASSIGNMENTS, Panel, Seat
from agentdistill.training.session import Session
from agentdistill.training.teachers import DECAY, MovingAverage, own_weights
from agentdistill.training.trainer import LocalTrainer, Opener, TrainerLost

LOSSES = 5
"""How often what trains may be lost without a checkpoint in between."""


@dataclass(slots=True)
class Run:
    """A finished run: its folder, and what `summary.json` holds."""

    folder: Path
    summary: dict[str, Any] = field(default_factory=dict)


def train(
    config: Experiment, folder: Path, *, resume: bool = False, say: Callable[[str], None] | None = None,
    trainer: Opener = LocalTrainer,
) -> Run:  # fmt: skip
    """Run an experiment to its end and write `summary.json` and the report.

    Args:
        folder: where the run is kept.
        resume: go on with a run that was stopped, to the same numbers it would have had.
        say: takes progress lines; the terminal by default.
        trainer: who distils into the student; this process by default.

    Raises:
        UserError: for whatever the user can mend.
    """
    losses, before, began = 0, None, time.perf_counter()
    while True:
        session = Session(config, folder, resume=resume, say=say, trainer=trainer)
        session.console.began = began
        try:
            return _run(session)
        except TrainerLost as lost:
            resume, now = True, session.journal.progress
            losses, before = (losses + 1 if now == before else 1), now
            if losses >= LOSSES:
                raise UserError(f"{lost}; that is {LOSSES} times since the last checkpoint, so the run ends here") from lost
            session.say(f"{lost}; the run goes on from its last checkpoint")
        finally:
            session.close()


def _run(session: Session) -> Run:
    config = session.config
    session.prepare()
    session.require_tasks()
    if any(section.privileged for section in config.teacher_roles.values()):
        session.require_plan()
    if config.sampling.temperature != 1 or config.sampling.top_p != 1 or config.sampling.top_k:
        session.say(
            "note: losses are at temperature 1 without truncation, and sampling is not: training is a little off policy"
        )
    models = _models(session)
    rates: dict[str, Rate] = {}
    teacher, reference = _teacher(session, models), _reference(session, models)
    for role, section in config.teacher_roles.items():
        if config.eval.tasks and not section.own and _playable(session, models.teachers[role]):
            rates[role] = session.measure(role, models.teachers[role])
    rates["before"] = session.measure("before", models.student)
    average = None
    for role, section in config.teacher_roles.items():
        if section.model == "ema" and isinstance(own := models.teachers[role], CausalLM):
            average = MovingAverage(own, DECAY if section.decay is None else section.decay)
    partner = models.teachers["teacher"] if config.mixed is not None else None
    session.distil(models.student, teacher, reference, average, partner)
    rates["after"] = session.measure("after", models.student)
    return _summarise(session, rates)


@dataclass(frozen=True, slots=True)
class _Models:
    """Who a run needs: the student, and the models that score it; teachers by role."""

    student: CausalLM
    teachers: dict[str, LanguageModel]
    reference: CausalLM | None


def _playable(session: Session, teacher: LanguageModel) -> bool:
    """Whether a teacher can be evaluated as the experiment asks; what its engine cannot do is said."""
    temperature, reason = session.config.eval.temperature, ""
    if isinstance(teacher, CausalLM):
        return True
    if temperature not in EXACT:
        reason = f"it is served elsewhere, which tells no log-probs at eval.temperature {temperature:g}"
    else:
        try:
            session.engines.sampler(teacher).generate([Request(0, [0], 0, frozenset())], SamplingParams(max_tokens=1))
        except TextOnly as error:
            reason = str(error)
    if reason:
        session.say(f"note: teacher '{teacher.name}' is not evaluated: {reason}")
    return not reason


def _models(session: Session) -> _Models:
    """Everybody, warmed up. All are loaded, and held against the student, before any is trained."""
    config = session.config
    roles = config.teacher_roles
    sections = [config.student, *roles.values()]
    tokenizer = session.tokenizer() if any(is_tiny(s.model) for s in sections) else None
    student = session.load("student", config.student, tokenizer)
    _require_packing(config, student)
    if config.student.lora is not None:
        chosen(student, config.student.lora.targets)  # refuses what is no layer before anything is trained
    if session.stored is not None:
        session.stored.meet(student)
    teachers: dict[str, LanguageModel] = {}
    reference = None
    for role, each in roles.items():
        if not each.own:
            teacher = teachers[role] = session.teacher(role, each, tokenizer)
            check_pair(student, teacher, config.env.max_context)
            if teacher.tokenizer.chat_template != student.tokenizer.chat_template:
                session.say(f"note: teacher '{teacher.name}' was made for another chat template than the student's")
    section = config.reference if session.method.needs & REFERENCE else None
    if config.reference is not None and section is None:
        session.say(f"note: method {config.method!r} reads no reference, so '{config.reference.model}' is not loaded")
    if section is not None and section.model not in OWN_WEIGHTS:
        reference = session.load("reference", section, tokenizer)
        check_pair(student, reference, config.env.max_context, "reference")
    for role, teacher in teachers.items():
        if isinstance(teacher, CausalLM):
            session.warm_up(role, roles[role], teacher)
    session.warm_up("student", config.student, student)
    student = session.adapt(student)
    for role, each in roles.items():
        if each.own:
            teachers[role] = own_weights(student, each.model)
    if section is not None and reference is None:
        reference = own_weights(student, section.model)
    return _laid_out(config, _Models(student, teachers, reference))


def _require_packing(config: Experiment, student: CausalLM) -> None:
    if config.train.packing and not student.packed:
        raise UserError(
            f"train.packing is true, and model '{student.name}' cannot take several sequences in one row: there they have "
            "other states than alone; leave train.packing out, and they are padded"
        )


def _laid_out(config: Experiment, models: _Models) -> _Models:
    """The models, whose passes pad their sequences where the experiment has it so."""
    if config.train.packing is False:
        for each in (models.student, *models.teachers.values(), models.reference):
            if isinstance(each, CausalLM):
                each.packed = False
    return models


def _teacher(session: Session, models: _Models) -> TeacherScorer | Panel | None:
    """Who scores for the signal: nobody, one teacher, or a panel; each gives what the method needs."""
    config = session.config
    if session.stored is not None and "teacher" in session.stored.scorers:
        return session.stored.scorers["teacher"]
    scorers: dict[str, TeacherScorer] = {}
    for role, section in config.teacher_roles.items():
        lm = models.teachers[role]
        if isinstance(lm, CausalLM) and section.own:
            scorers[role] = _scorer(session, models, lm)
        else:
            scorers[role] = session.engines.scorer(lm, width=models.student.vocab_size)
    for scorer in scorers.values():
        require_given(session.method, "teacher", scorer)
    if not config.teachers:
        return scorers.get("teacher")
    seats = {}
    for (name, section), scorer in zip(config.teachers.items(), scorers.values(), strict=True):
        scorer.name = f"{name}:{scorer.name}"  # two teachers may be the same model with different training, or prompts
        seats[name] = Seat(scorer, section.privileged)
    choice, names = ASSIGNMENTS.resolve(config.assign), list(config.teachers)
    places = {seed: place for place, seed in enumerate(session.seeds(config.env.split))}
    widths = {lm.vocab_size for lm in models.teachers.values()}
    return Panel(seats, lambda trajectory: choice(trajectory, names, places), min(widths) if len(widths) > 1 else None)


def _reference(session: Session, models: _Models) -> TeacherScorer | None:
    """The reference as a scorer that gives what the method needs of it."""
    if models.reference is None:
        return None if session.stored is None else session.stored.scorers.get("reference")
    scorer = _scorer(session, models, models.reference)
    scorer.name = f"reference:{scorer.name}"  # in the store, beside a teacher that may be the same model
    require_given(session.method, "reference", scorer)
    return scorer


def _scorer(session: Session, models: _Models, lm: CausalLM) -> TransformersScorer:
    """A scorer in this process."""
    scorer = TransformersScorer(lm, budget=session.config.train.token_budget, live=lm is models.student)
    if lm is models.student:
        scorer.name = "live"
    return scorer


def _summarise(session: Session, rates: dict[str, Rate]) -> Run:
    from agentdistill.report import report

    order = sorted(rates, key=lambda label: label not in ("before", "after"))
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
