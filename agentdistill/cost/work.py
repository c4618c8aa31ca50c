"""How much an experiment asks for: episodes, their lengths, and passes over them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from agentdistill.config import Experiment
from agentdistill.errors import UserError
from agentdistill.evaluation import open_run
from agentdistill.policies.shared import computed
from agentdistill.report.data import load_run, number
from agentdistill.signals import Method, TokenTable
from agentdistill.trajectory import Trajectory

_BATCH = "iter-"
_EPISODES = 256


@dataclass(frozen=True, slots=True)
class Lengths:
    """A mean episode.

    Attributes:
        turns: messages of the student.
        written: its tokens, all turns together.
        longest: tokens of its longest message.
        read: tokens that a pass over it reads: all of its contexts, each once.
        environment: seconds that the environment takes for a turn, resets included.
        source: where these numbers are from.
        contexts: sequences that it consists of, more than one where prompts do not extend what came before.
        passed: tokens that a training pass computes for one that it reads: rows as long as the longest beside them make it
            more, beginnings that episodes have in common less.
    """

    turns: float
    written: float
    longest: float
    read: float
    environment: float
    source: str
    contexts: float = 1.0
    passed: float = 1.0

    @property
    def context(self) -> int:
        """Tokens of a sequence."""
        return max(2, round(self.read / self.contexts))


def allowed(config: Experiment) -> Lengths:
    """The longest episodes that an experiment allows: every message as long as it may be, every context full."""
    turns, message = config.env.max_turns, config.sampling.max_tokens
    read = config.env.max_context
    written = min(turns * message, read // 2)
    return Lengths(turns, written, message, read, 0.0, "as long as the experiment allows, which real ones seldom are")


def like(folder: str | Path, budget: int) -> Lengths:
    """The episodes of a run that was made: its last stored iterations, or whatever it holds, and the time environments took.

    Args:
        budget: tokens of one training pass.

    Raises:
        UserError: when there is no such run, or it holds no episode with student tokens.
    """
    store = open_run(folder)
    names = [each for each in store.batches() if each.startswith(_BATCH)] or store.batches()
    played, passed = list[Trajectory](), 0
    for name in reversed(names):
        batch = [each for each in store.trajectories(name, ()) if each.n_action_tokens]
        passed += computed([ids for each in batch for ids in _contexts(each)], budget)
        played += batch
        if len(played) >= _EPISODES:
            break
    if not played:
        raise UserError(f"'{folder}' holds no stored episode that a student played, so their lengths are not known")
    turns = float(np.mean([len(each.turns) for each in played]))
    longest = [max(len(turn.action_ids) for turn in each.turns) for each in played]
    contexts = [_contexts(each) for each in played]
    read = sum(len(ids) for each in contexts for ids in each)
    return Lengths(
        turns, float(np.mean([each.n_action_tokens for each in played])), float(np.mean(longest)), read / len(played),
        _environment(Path(folder), turns), f"{len(played)} stored episodes of {folder}",
        sum(map(len, contexts)) / len(played), passed / read,
    )  # fmt: skip


def _contexts(trajectory: Trajectory) -> list[list[int]]:
    """The sequences of ids that an episode consists of."""
    stream = trajectory.stream()
    return [stream.ids[stream.segment == each].tolist() for each in range(int(stream.segment[-1]) + 1)]


def _environment(folder: Path, turns: float) -> float:
    """Seconds a turn that the environment took, by the run's metrics and timings; 0 where they do not say."""
    try:
        run = load_run(folder)
    except UserError:  # an evaluation has none
        return 0.0
    metrics, spent, played = {each["iteration"]: each for each in run.iterations}, 0.0, 0.0
    for each in run.timings:
        line = metrics.get(each["iteration"], {})
        episodes, taken = sum(line.get("stop_reasons", {}).values()), number(each.get("environment"))
        if episodes and not math.isnan(taken):
            spent, played = spent + taken, played + episodes * line.get("turns", turns)
    return spent / played if played else 0.0


@dataclass(frozen=True, slots=True)
class Work:
    """What an iteration asks for.

    Attributes:
        episodes: played at once.
        student_passes: forward and backward over every episode.
        own_pass: whether the student also scores every episode before it is trained on it.
        lengths: of an episode.
        evaluated: episodes of evaluations, in the whole run.
        iterations: in the whole run.
    """

    episodes: int
    student_passes: int
    own_pass: bool
    lengths: Lengths
    evaluated: int
    iterations: int

    @property
    def read(self) -> float:
        """Tokens of all episodes."""
        return self.episodes * self.lengths.read

    @property
    def passed(self) -> float:
        """Tokens that a training pass over all episodes computes."""
        return self.read * self.lengths.passed

    @property
    def written(self) -> float:
        """The student's among those that are read."""
        return self.episodes * self.lengths.written


def work_of(config: Experiment, lengths: Lengths) -> Work:
    """The work of an experiment whose episodes are that long."""
    train, section = config.train, config.eval
    labels = 2 + sum(not each.own for each in config.teacher_roles.values())
    during = (train.iterations - 1) // section.every if section.every else 0
    return Work(
        train.tasks * train.rollouts, train.epochs, train.minibatches > 1 or reads_early(Method.load(config.method)), lengths,
        labels * section.tasks * section.samples + during * section.every_tasks, train.iterations,
    )  # fmt: skip


class _Probe:
    """Columns of the student that note whether they are read."""

    def __init__(self, method: Method) -> None:
        self.names = ("logprob", "recomputed", "entropy", "rkl", *method.measures)

    def compute(self) -> dict[str, list[float]]:
        return {name: [-0.5, -0.5, -0.2, -0.9] for name in self.names}


def reads_early(method: Method) -> bool:
    """Whether a method reads the student's columns before the update, whose pass fills them otherwise."""
    same: dict[str, ArrayLike] = {name: [0.0] * 4 for name in ("teacher", "reference", "sampler", "behaviour", "group", "turn")}
    same |= {
        "trajectory": [0, 0, 1, 1],
        "step": [-1, 0, -1, 0],
        "is_action": [False, True, False, True],
        "reward": [0, 0, 1, 1],
    }
    table = TokenTable(same, _Probe(method))
    try:
        method.apply(table)
    except UserError:  # it wants a column that is not made up here
        return True
    return not table.pending
