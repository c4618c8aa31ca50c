"""How much an experiment asks for: episodes, their lengths, and passes over them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from agentdistill.config import Experiment
from agentdistill.errors import UserError
from agentdistill.evaluation import open_run
from agentdistill.policies.shared import common_prefix, computed
from agentdistill.report.data import load_run, number
from agentdistill.signals import Method, TokenTable
from agentdistill.training.score import sequences_of
from agentdistill.trajectory import Trajectory

_BATCH = "iter-"
_EPISODES = 256


@dataclass(frozen=True, slots=True)
class Lengths:
    """A mean episode, and how the episodes of an iteration are played together.

    Attributes:
        turns: messages of the student.
        written: its tokens, all turns together.
        read: tokens that a pass over it reads: all of its contexts, each once.
        environment: seconds that the environment takes for a turn, resets included.
        source: where these numbers are from.
        rounds: calls of the sampler in an iteration: the turns of its longest episode.
        steps: tokens that are sampled one after the other in an iteration: the longest message of each round.
        given: tokens of prompts that the sampler computes, an episode's share of them.
        span: tokens behind which one is sampled, of the longest context in play; 0: half a sequence.
        contexts: sequences that it consists of, more than one where prompts do not extend what came before.
        passed: tokens that a training pass computes for one that it reads: beginnings that episodes have in common make it
            less, and padding more where there is any.
        told: the same of a teacher whose prompts are its own, with the plan in them.
        known: whether they are of episodes that were played.
    """

    turns: float
    written: float
    read: float
    environment: float
    source: str
    rounds: float
    steps: float
    given: float
    span: float = 0.0
    contexts: float = 1.0
    passed: float = 1.0
    told: float = 1.0
    known: bool = False

    @property
    def context(self) -> int:
        """Tokens of a sequence."""
        return max(2, round(self.read / self.contexts))

    @property
    def behind(self) -> int:
        """Tokens behind which one is sampled."""
        return max(1, round(self.span or self.context / 2))


def allowed(config: Experiment) -> Lengths:
    """The longest episodes that an experiment allows: every message as long as it may be, every context full."""
    turns, read = config.env.max_turns, config.env.max_context
    written = min(turns * config.sampling.max_tokens, read // 2)
    source = "as long as the experiment allows, which real ones seldom are"
    return Lengths(turns, written, read, 0.0, source, rounds=turns, steps=written, given=read - written)


def like(folder: str | Path, budget: int, packed: bool = True) -> Lengths:
    """The episodes of a run that was made: its last stored iterations, or whatever it holds, and the time environments took.

    Args:
        budget: tokens of one training pass.
        packed: whether its sequences lie in one row (see `CausalLM.packed`).

    Raises:
        UserError: when there is no such run, or it holds no episode with student tokens.
    """
    store = open_run(folder)
    names = [each for each in store.batches() if each.startswith(_BATCH)] or store.batches()
    batches = list[list[Trajectory]]()
    for name in reversed(names):
        batches.append([each for each in store.trajectories(name, ()) if each.n_action_tokens])
        if sum(map(len, batches)) >= _EPISODES:
            break
    batches = [batch for batch in batches if batch]
    if not batches:
        raise UserError(f"'{folder}' holds no stored episode that a student played, so their lengths are not known")
    played = [each for batch in batches for each in batch]
    segments = [sequences_of(batch) for batch in batches]
    contexts = [[each.ids.tolist() for each in batch] for batch in segments]
    told = [[list(each.teacher.ids) for each in batch] for batch in segments]
    read = sum(len(ids) for batch in contexts for ids in batch)
    rounds = [rounds_of(batch) for batch in batches]
    turns = float(np.mean([sum(turn.author == "student" for turn in each.turns) for each in played]))
    return Lengths(
        turns, float(np.mean([each.n_action_tokens for each in played])), read / len(played), _environment(Path(folder), turns),
        f"{len(played)} stored episodes of {folder}",
        rounds=float(np.mean([len(each) for each in rounds])),
        steps=float(np.mean([sum(turn.longest for turn in each) for each in rounds])),
        given=sum(turn.computed for each in rounds for turn in each) / len(played),
        span=sum(turn.span * turn.longest for each in rounds for turn in each)
        / sum(turn.longest for each in rounds for turn in each),
        contexts=sum(map(len, contexts)) / len(played),
        passed=sum(computed(batch, budget, packed) for batch in contexts) / read,
        told=sum(computed(batch, budget, packed) for batch in told) / read,
        known=True,
    )  # fmt: skip


@dataclass(slots=True)
class Round:
    """One call of the sampler for all episodes that are still played.

    Attributes:
        longest: tokens of the longest message.
        computed: tokens of prompts that it computes.
        span: of the longest context, and half of the message behind it.
    """

    longest: int = 0
    computed: int = 0
    span: float = 0.0


def rounds_of(batch: Sequence[Trajectory]) -> list[Round]:
    """How the sampler played some episodes together, by what its cache holds (see `policies.local.TransformersSampler`).

    What new episodes begin alike with is computed once; later prompts fill rows up to the longest.
    """
    rows: list[list[list[int]]] = []
    out: list[Round] = []
    for trajectory in batch:
        context, cached, k = list[int](), list[int](), 0
        for turn in trajectory.turns:
            context = ([] if turn.fresh else context) + turn.prompt_ids
            if turn.author == "student":
                if k == len(out):
                    out.append(Round())
                    rows.append([])
                out[k].longest = max(out[k].longest, len(turn.action_ids))
                out[k].span = max(out[k].span, len(context) + len(turn.action_ids) / 2)
                known = common_prefix([cached, context]) if cached else 0
                rows[k].append(context[min(known, len(context) - 1) :])
                cached, k = context + turn.action_ids[:-1], k + 1  # the last token waits for the next prompt
            context = context + turn.action_ids
    for k, (each, pending) in enumerate(zip(out, rows, strict=True)):
        each.computed = _distinct(pending) if k == 0 else len(pending) * max(map(len, pending))
    return out


def _distinct(sequences: Sequence[list[int]]) -> int:
    """Tokens of sequences, beginnings that some have in common once."""
    order = sorted(sequences)
    return sum(map(len, order)) - sum(common_prefix(list(pair)) for pair in itertools.pairwise(order))


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
    def told(self) -> float:
        """The same of a teacher whose prompts are its own."""
        return self.read * self.lengths.told

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
