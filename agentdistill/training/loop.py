"""The on-policy loop: rollout → score → signals → update → hand-over, iteration by iteration."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agentdistill.config import Experiment
from agentdistill.console import Console
from agentdistill.curricula import Schedule
from agentdistill.errors import UserError
from agentdistill.evaluation import stop_reasons
from agentdistill.intervals import Rate
from agentdistill.policies.base import TeacherScorer
from agentdistill.policies.model import CausalLM
from agentdistill.pool import EnvironmentFault
from agentdistill.recorded import Recorded
from agentdistill.rollout import Clock, Rollout, Task
from agentdistill.seeds import derive, permutation
from agentdistill.signals import Method, Streams
from agentdistill.store import Store
from agentdistill.training.ahead import Ahead, Played, goes_ahead
from agentdistill.training.evaluate import env_failures
from agentdistill.training.health import (
    agreement,
    drift,
    measures_silence,
    opening,
    require_signal,
    terms,
    token_shares,
    weighting,
)
from agentdistill.training.journal import Journal
from agentdistill.training.mixed import authors, own_turns
from agentdistill.training.optim import lr_factor
from agentdistill.training.panel import Panel
from agentdistill.training.progress import damaged
from agentdistill.training.score import Scored, score, trainable
from agentdistill.training.state import require_finite
from agentdistill.training.stored import StoredEpisodes
from agentdistill.training.teachers import MovingAverage
from agentdistill.training.trainer import LocalTrainer, Trainer
from agentdistill.training.update import Totals
from agentdistill.trajectory import FloatArray, Trajectory

STAGE = "train"
_BATCH = re.compile(r"iter-([0-9]+)")


@dataclass(slots=True)
class Roles:
    """Who takes part in the loop. `average` is the teacher's model, where it follows the student.

    `stored` gives the episodes, where none are played; `ahead` plays them, where that is done during the update.
    `trainer` changes the student's weights: this process does, where none is named.
    """

    student: CausalLM
    teacher: TeacherScorer | Panel | None
    method: Method
    schedule: Schedule
    rollout: Rollout
    tasks: Sequence[int]
    recorded: Recorded = field(default_factory=Recorded)
    reference: TeacherScorer | None = None
    average: MovingAverage | None = None
    stored: StoredEpisodes | None = None
    ahead: Ahead | None = None
    trainer: Trainer | None = None


def distil(
    config: Experiment,
    roles: Roles,
    journal: Journal,
    store: Store,
    *,
    validate: Callable[[int], Rate],
    console: Console,
) -> None:
    """Run the loop from the journal's checkpoint (or the start) to the last iteration.

    Args:
        validate: success on validation tasks after an iteration; called every `eval.every` iterations.
    """
    train = config.train
    trainer = roles.trainer or LocalTrainer(roles.student, config)
    start = 0
    if (point := journal.resume_point(STAGE, train.iterations)) is not None:
        folder, start, state = point
        trainer.load(folder)
        if roles.average is not None:
            roles.average.load(folder)
        try:
            roles.schedule.load(state["schedule"])
        except (KeyError, TypeError, ValueError) as error:
            reason = f"the schedule cannot go on from {state!r}"
            raise UserError(damaged(journal.folder / "progress.json", reason)) from error
    store.discard_after(lambda name: (found := _BATCH.fullmatch(name)) is not None and int(found[1]) > start)
    for iteration in range(start + 1, train.iterations + 1):
        now = _iteration(config, roles, trainer, iteration, journal, store, console.say)
        console.tick("distil", iteration, train.iterations, now)
        if config.eval.every and iteration % config.eval.every == 0 and iteration < train.iterations:
            rate = validate(iteration)
            temperature = config.eval.temperature
            journal.metric("eval", label="during", iteration=iteration, temperature=temperature, **rate.as_dict())
            console.say(f"iteration {iteration}: validation success {rate}")
        if iteration % train.checkpoint_every == 0 or iteration == train.iterations:

            def save(folder: Path) -> None:
                trainer.save(folder)
                if roles.average is not None:
                    roles.average.save(folder)

            journal.checkpoint(STAGE, iteration, save, {"schedule": roles.schedule.state()})
    if isinstance(roles.teacher, Panel) and roles.teacher.asked:
        for name in sorted(roles.teacher.seats.keys() - roles.teacher.asked):
            console.say(
                f"note: teacher '{name}' scored nothing: no task of iterations {start + 1} to {train.iterations} was its own"
            )


def _iteration(
    config: Experiment,
    roles: Roles,
    trainer: Trainer,
    iteration: int,
    journal: Journal,
    store: Store,
    say: Callable[[str], None],
) -> str:
    """One round; what it came to, in a few words."""
    began = time.perf_counter()
    batch = f"iter-{iteration:06d}"
    episodes = _episodes(config, roles, iteration, say)
    tasks, played, clock = episodes.tasks, episodes.trajectories, episodes.clock
    rows = trainable(played, authors(config))
    if not rows:
        faults = env_failures(played)
        raise UserError(f"iteration {iteration} gave no trainable episode" + (f": {faults[0]}" if faults else ""))
    rolled = time.perf_counter()
    scored = score(
        roles.student, roles.teacher, rows, config.train.token_budget, config.train.old_logprobs, roles.method.measures,
        roles.reference, authors(config), later=True,
    )  # fmt: skip
    streams = roles.method.apply(scored.table, iteration)
    scored_at = time.perf_counter()
    record: dict[str, Any] = _update(config, roles, trainer, scored, streams, iteration, opening(tasks, scored))
    require_finite(roles.student, scored.sequences[0].ids.tolist(), f"iteration {iteration}", "train.lr")
    if roles.average is not None:
        roles.average.update(roles.student)
    updated = time.perf_counter()
    kl_by_turn = scored.table.mean_by_index("turn", scored.kl)[0] if roles.teacher is not None else np.empty(0)
    roles.schedule.observe(kl_by_turn.tolist(), iteration)
    record |= batch_metrics(played, rows, scored, streams, roles.teacher is not None)
    if roles.stored is not None:
        record |= {"passes": roles.stored.passes(iteration), "drift": drift(scored)}
    if roles.ahead is not None:
        record["staleness"] = max((_version(config, iteration) - t.policy_version for t in played), default=0)
    record["without_expert"] = sum(t.without_expert for t in tasks)
    record["depth"] = min((t.max_turns for t in tasks if t.max_turns is not None), default=None)
    journal.metric("iteration", iteration=iteration, **record)
    if config.train.keep_rollouts and roles.stored is None:
        store.write(batch, played)
    total = time.perf_counter() - began
    journal.timing(
        iteration=iteration, generate=clock.generate, environment=clock.environment,
        score=scored_at - rolled, update=updated - scored_at, total=total,
        tokens_per_second=record["action_tokens"] / total,
    )  # fmt: skip
    say(_line(iteration, config.train.iterations, record, total))
    for fault in env_failures(played)[:1]:
        say(f"iteration {iteration}: {len(env_failures(played))} episode(s) lost: {fault}")
    return _short(record, total)


def _version(config: Experiment, iteration: int) -> int:
    """How many updates the student has seen when an iteration begins."""
    return (iteration - 1) * config.train.epochs * config.train.minibatches


def _episodes(config: Experiment, roles: Roles, iteration: int, say: Callable[[str], None]) -> Played:
    """This iteration's episodes; where they are played ahead, those of the next one are begun."""
    began = time.perf_counter()
    clock = roles.rollout.clock = Clock()
    if roles.stored is not None:
        return Played([], roles.stored.take(iteration), clock)
    version = roles.rollout.sampler.version = _version(config, iteration)

    def plan(iteration: int) -> list[Task]:
        return plan_tasks(config, roles, iteration, say)

    if roles.ahead is not None:
        played = roles.ahead.episodes(iteration, plan, config.sampling, version)
        if goes_ahead(config, iteration):
            roles.ahead.begin(iteration + 1, plan, config.sampling, version)
        return played
    tasks = plan(iteration)
    planned = time.perf_counter() - began
    trajectories = roles.rollout.run(tasks, config.sampling, f"iter-{iteration:06d}")
    clock.environment += planned
    return Played(tasks, trajectories, clock)


def plan_tasks(config: Experiment, roles: Roles, iteration: int, say: Callable[[str], None]) -> list[Task]:
    """This iteration's episodes: tasks in an order shuffled anew for every pass over the split, `rollouts` of each."""
    out: list[Task] = []
    n, limit = len(roles.tasks), config.env.max_turns
    places = [divmod((iteration - 1) * config.train.tasks + i, n) for i in range(config.train.tasks)]
    seeds = [roles.tasks[permutation(n, derive(config.seed, "tasks", lap))[place]] for lap, place in places]
    for i, (seed, expert) in enumerate(zip(seeds, _experts(roles, seeds, limit, say), strict=True)):
        cut = roles.schedule.cut(iteration, len(expert) if expert else None, limit)
        for k in range(config.train.rollouts):
            out.append(
                Task(
                    seed=seed,
                    sample_seed=derive(config.seed, "rollout", iteration, i, k),
                    group=i,
                    max_turns=cut.max_turns if cut.max_turns < limit else None,
                    prefix=tuple((expert or [])[: cut.prefix_turns]),
                    without_expert=roles.schedule.needs_expert and expert is None,
                    own_turns=own_turns(config, iteration, i, k),
                )
            )
    return out


def _experts(roles: Roles, seeds: Sequence[int], limit: int, say: Callable[[str], None]) -> list[list[str] | None]:
    """Recorded actions, or the expert's, on each task, where the schedule wants them; where the expert fails there are none."""
    if not roles.schedule.needs_expert:
        return [None] * len(seeds)
    own, recorded = [seed for seed in seeds if seed not in roles.recorded.actions], roles.recorded.actions
    found = roles.rollout.pool.expert_episodes(own, limit)
    if faults := [each for each in found if isinstance(each, EnvironmentFault)]:
        say(f"the expert failed on {len(faults)} of {len(own)} tasks, played from the start: {faults[0]}")
    episodes = {seed: None if isinstance(each, EnvironmentFault) else each for seed, each in zip(own, found, strict=True)}
    return [recorded[seed] if seed in recorded else episodes[seed] for seed in seeds]


def _update(
    config: Experiment,
    roles: Roles,
    trainer: Trainer,
    scored: Scored,
    streams: Streams,
    iteration: int,
    excused: bool,
) -> dict[str, Any]:
    """All optimizer steps of an iteration; loss (mean over steps), gradient norm, clip fraction, learning rate.

    Args:
        excused: whether a signal without effect is no fault (see `health.opening`).
    """
    train = config.train
    n = scored.table.n_trajectories
    steps = [
        part
        for epoch in range(train.epochs)
        for part in _parts(permutation(n, derive(config.seed, "minibatch", iteration, epoch)), train.minibatches)
    ]
    planned = train.iterations * train.epochs * train.minibatches
    losses, norms, lr = [], [], train.lr
    every = Totals()
    out: dict[str, Any] = {}
    for index, part in enumerate(steps):
        step = (iteration - 1) * train.epochs * train.minibatches + index
        members = set(part)
        inside = np.isin(scored.table.trajectory, part)
        whole = len(part) == n
        coef: FloatArray = streams.coef if whole else roles.method.aggregation(scored.table, streams.mask & inside)
        segments = [i for i, s in enumerate(scored.sequences) if s.trajectory in members]
        where = f"iteration {iteration}, optimizer step {step + 1}"
        if not (coef[scored.table.is_action] > 0).all():
            scored.table.settle()  # this step's pass would not see all of the student's tokens

        def backward(streams: Streams, coef: FloatArray = coef, segments: list[int] = segments, where: str = where) -> Totals:
            return trainer.accumulate(roles.method, scored, streams, coef, segments, where)

        if index == 0 and roles.teacher is not None and measures_silence(roles.method, iteration):
            out["grad_norm_silent"] = 0.0  # of nothing, where there is no other term
            if roles.method.rewarded:
                backward(streams.silent)
                out["grad_norm_silent"] = trainer.set_aside()
        totals = backward(streams)
        scored.settle()
        expected = roles.method.distils and not excused and not _agrees_at_first(config, roles.method)
        if step == 0 and roles.teacher is not None and expected:
            require_signal(roles.method, streams, coef, trainer.difference(), roles.teacher.name)
        lr = train.lr * lr_factor(step, planned, train.warmup, train.lr_schedule)
        norms.append(trainer.step(lr, where))
        losses.append(totals.loss)
        every.add(totals)
    roles.rollout.sampler.release()
    tokens = max(1, every.tokens)
    return out | {
        "loss": float(np.mean(losses)), "grad_norm": float(np.mean(norms)), "lr": lr,
        "clip_fraction": every.clipped / tokens, "clip_low": every.low / tokens, "clip_high": every.high / tokens,
        "clip_dual": every.dual / tokens, **terms(scored, streams, every.divergence / tokens),
    }  # fmt: skip


def _agrees_at_first(config: Experiment, method: Method) -> bool:
    """Whether a teacher is the student as it was and holds it there while a reward moves it: it says nothing new at first."""
    held = [each.model in ("initial", "ema") and not each.privileged for each in config.teacher_roles.values()]
    return any(held) and method.rewarded


def _parts(order: Sequence[int], k: int) -> list[Sequence[int]]:
    """`order` cut into at most `k` non-empty parts of nearly equal size."""
    k = min(k, len(order))
    return [order[len(order) * i // k : len(order) * (i + 1) // k] for i in range(k)]


def batch_metrics(
    played: Sequence[Trajectory], rows: Sequence[Trajectory], scored: Scored, streams: Streams, has_teacher: bool
) -> dict[str, Any]:
    """What a line of `metrics.jsonl` says of one batch of rollouts."""
    table = scored.table
    out: dict[str, Any] = agreement(scored) | weighting(scored, streams) if has_teacher else {}
    gap = np.abs(table["recomputed"] - table["sampler"])[table.mask & (table["own"] > 0)]
    return out | {
        "token_shares": token_shares(scored, streams),
        "entropy": float(table["entropy"][table.mask].mean()),
        "sampler_gap": float(gap.max(initial=0.0)),
        "success": float(np.mean([t.success for t in played])),
        "reward": float(np.mean([t.reward for t in played])),
        "turns": float(np.mean([len(t.turns) for t in played])),
        "prefix_turns": float(np.mean([t.prefix_turns for t in played])),
        "teacher_turns": float(np.mean([sum(turn.author == "teacher" for turn in t.turns) for t in played])),
        "action_tokens": int(streams.mask.sum()),
        "tool_calls": sum(len(turn.tool_calls) for t in played for turn in t.turns),
        "tool_errors": sum(not c.ok for t in played for turn in t.turns for c in turn.tool_calls),
        "stop_reasons": stop_reasons(played),
        "overflowed": sum(t.stop_reason == "prompt_overflow" for t in played),
        "windowed": sum(t.windowed for t in played),
        "left_out": len(played) - len(rows),
    }


def _short(record: dict[str, Any], seconds: float) -> str:
    kl = f"KL {record['kl']:.3f}, " if "kl" in record else ""
    return f"success {100 * record['success']:.0f} %, {kl}{record['action_tokens'] / seconds:.0f} tok/s"


def _line(iteration: int, total: int, record: dict[str, Any], seconds: float) -> str:
    kl = f"KL {record['kl']:.3f} nats/token, " if "kl" in record else ""
    depth = f", depth {record['depth']}" if record["depth"] is not None else ""
    prefix = f", prefix {record['prefix_turns']:.1f}" if record["prefix_turns"] else ""
    return (
        f"iteration {iteration}/{total}: success {100 * record['success']:.0f} %, {kl}loss {record['loss']:.4f}, "
        f"{record['turns']:.1f} turns{depth}{prefix}, {seconds:.1f} s"
    )
