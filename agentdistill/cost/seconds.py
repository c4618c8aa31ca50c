"""Seconds of an iteration, by what they are spent on."""

from __future__ import annotations

import math
from collections.abc import Mapping

from agentdistill.config import Experiment
from agentdistill.cost.layout import Layout
from agentdistill.cost.meters import Meter, Passes
from agentdistill.cost.models import Models
from agentdistill.cost.work import Work
from agentdistill.signals import Method
from agentdistill.training.health import SILENT_EVERY

_WIDTH = 4  # bytes of a number on its way


def seconds(config: Experiment, models: Models, work: Work, layout: Layout, meter: Meter, own: float = 0.0) -> dict[str, float]:
    """Seconds of one iteration, by what they are spent on.

    Args:
        own: of the program itself (see `own.own_seconds`).
    """
    lengths, train = work.lengths, config.train
    share = {"samplers": layout.samplers, "scorers": layout.scorers, "ranks": layout.ranks}
    parts = {name: 1 if layout.together else max(1, n) for name, n in share.items()}  # one machine's CPUs are all at work
    budget = max(train.token_budget, lengths.context)
    score = 0.0
    for asked in models.asked:
        tokens = asked.share * (work.told if asked.told else work.passed)
        passes = Passes(tokens, budget, lengths.context, asked.share * work.written)
        score += meter.score(asked.shape, passes) / (1 if asked.here else parts["scorers"])
    if work.own_pass:
        score += meter.score(models.student, Passes(work.passed, budget, lengths.context, work.written))
    out = {
        "generate": playing(models, work, meter) / parts["samplers"],
        "environment": work.episodes * lengths.turns * lengths.environment,
        "score": score,
        "update": _update(config, models, work, layout, meter) / parts["ranks"],
        "the program itself": own,
    }
    if layout.ranked or layout.samplers:
        out["between processes"] = meter.send(_sent(config, models, work, layout))
    return out


def playing(models: Models, work: Work, meter: Meter) -> float:
    """Seconds of all messages of an iteration: in each round everybody's prompt, then token by token.

    A step has as many rows as there are messages not finished yet, a round as many as there are episodes not over.
    """
    lengths, student = work.lengths, models.student
    rows, new = work.episodes * lengths.turns / lengths.rounds, lengths.given / lengths.turns
    prompts = lengths.rounds * meter.read(student, rows, new, lengths.behind)
    steps = max(0.0, lengths.steps - lengths.rounds)  # a prompt's pass gives the first token
    if not steps:
        return prompts
    live = max(1.0, (work.written - work.episodes * lengths.turns) / steps)
    return prompts + meter.decode(student, live, lengths.behind, steps)


def _update(config: Experiment, models: Models, work: Work, layout: Layout, meter: Meter) -> float:
    """Seconds of all passes with gradients and of the steps, if one process made them all."""
    train, method, student = config.train, Method.load(config.method), models.student
    fast, again = meter.ranked() if layout.ranked else meter, train.activation_checkpointing
    budget = max(min(train.token_budget, work.passed / layout.ranks / train.minibatches), work.lengths.context)
    passes = train.epochs * fast.train(student, Passes(work.passed, budget, work.lengths.context, work.written), again)
    if method.distils and method.rewarded:
        passes *= 1 + 1 / (SILENT_EVERY * train.epochs * train.minibatches)  # the gradient without the teacher's term
    return passes + _steps(config) * meter.step(models.trained)


def _steps(config: Experiment) -> int:
    """Optimizer steps of an iteration."""
    return config.train.epochs * config.train.minibatches


def _sent(config: Experiment, models: Models, work: Work, layout: Layout) -> float:
    """Bytes that a process waits for in an iteration.

    Of ranks each micro-batch gathers the layers' weights twice and shares out their gradients once; after each step the new
    weights go to who plays, and answers come from scorers and go to ranks.
    """
    train, weights = config.train, _WIDTH * models.trained
    answers = _WIDTH * work.written * sum(each.share * each.shape.width for each in models.asked)
    out = answers * bool(layout.scorers) + weights * bool(layout.samplers)
    if layout.ranked:
        others = 1 - 1 / layout.ranks
        each = max(train.token_budget, work.lengths.context)
        batches = train.minibatches * math.ceil(work.passed / layout.ranks / train.minibatches / each)
        student = models.student
        out += train.epochs * batches * others * _WIDTH * (3 * (student.parameters - student.root) + 2 * student.root)
        out += _steps(config) * weights * others + train.epochs * answers
    return out


def evaluating(work: Work, taken: Mapping[str, float]) -> float:
    """Seconds of all evaluations of a run, whose episodes take as long as those of an iteration (`seconds`) do."""
    return work.evaluated / work.episodes * (taken["generate"] + taken["environment"])
