"""Asking a scorer about a store's trajectories: which are still to be asked about, and by whom, until none is left."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from agentdistill.errors import StoreError, UserError
from agentdistill.policies.base import TeacherScorer
from agentdistill.store import Store
from agentdistill.store_scores import Identity, Part, ScoreFiles
from agentdistill.training.score import trainable
from agentdistill.training.score_portion import Columns, Done, Portion, PortionScorer
from agentdistill.trajectory import Scores, Trajectory

EPISODES = 128
"""Trajectories asked about at one time, at most: what a killed process loses."""
TOKENS = 1 << 16
"""Tokens of theirs, at most, where there are several."""
NUMBERS = 1 << 27
"""Numbers that their answers may hold, 4 bytes each: hidden states, and the top-k with its ids."""
SHARES = 4
"""Portions for each of several processes, at least: so that none waits long for the last one."""

Found = tuple[Portion, list[Trajectory]]
Scoring = Callable[[Iterable[Found]], Iterator[Done]]
"""Scores portions, in any order; each is on disk when it is yielded."""


@dataclass(slots=True)
class Added:
    """What scoring added to a store.

    Attributes:
        episodes: scored now.
        already: scored before.
        left_out: that training would leave out too: the environment failed, or no token is the student's.
        tokens: of the student, scored now.
        read: tokens that the scorer read for it, its own prompts included.
        seconds: spent on it, reading and writing included.
        bytes: on disk, by column; `file` is what the files have beside their columns.
        batches: episodes scored now by batch.
    """

    scorer: str
    episodes: int = 0
    already: int = 0
    left_out: int = 0
    tokens: int = 0
    read: int = 0
    seconds: float = 0.0
    bytes: dict[str, int] = field(default_factory=dict)
    batches: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        rate = self.tokens / self.seconds if self.seconds else 0.0
        size = sum(self.bytes.values())
        columns = ", ".join(f"{name} {_bytes(n)}" for name, n in self.bytes.items() if n)
        said = (
            f"'{self.scorer}': {self.episodes} episodes scored, {self.already} were already, {self.left_out} are not trained "
            f"on; {self.tokens} tokens in {self.seconds:.1f} s ({rate:.0f} tokens/s, {self.read} tokens read)"
        )
        return said + (f"; {_bytes(size)} on disk ({size / self.tokens:.1f} bytes/token): {columns}" if self.tokens else "")


class StoreScoring:
    """A scorer at work on a store. Whatever is finished is on disk: after a kill, the same call goes on.

    While it is at work nobody else may add scores under its name.

    Args:
        identity: who the scorer is.
        name: its name in the store.
        columns: what is to be kept of its answers.
        width: numbers a token that the scorer's answers hold.
        processes: how many share the work.
        say: takes a line as trajectories are scored.
        tick: takes how many trajectories are done, of how many, and how many tokens are read a second.
    """

    def __init__(
        self, store: Store, identity: Identity, name: str, columns: Columns, *, width: int = 0, processes: int = 1,
        say: Callable[[str], None] = lambda _: None, tick: Callable[[int, int, float], None] = lambda a, b, c: None,
    ) -> None:  # fmt: skip
        self._store, self._identity, self._name, self._columns = store, identity, name, columns
        self._width, self._processes, self._say, self._tick = width, processes, say, tick
        self._files: ScoreFiles = store.scores(name)
        self._done = self._total = self._read = 0
        self._began = time.perf_counter()

    def run(self, batches: Sequence[str], scoring: Scoring) -> Added:
        """Score what is not scored yet.

        Args:
            scoring: does it.

        Raises:
            StoreError: when the name is another model's, or nobody's, or another process is adding scores under it; when a
                file is damaged, or the disk refuses. What was scored before it stays.
        """
        if self._files.identity() is None:
            self._require_unused()
        with self._files.exclusive():
            self._files.claim(self._identity)
            return self._run(batches, scoring)

    def passed(self, tokens: int) -> None:
        """So many more tokens are read."""
        self._read += tokens
        self._tick(self._done, self._total, self._read / (time.perf_counter() - self._began))

    def _run(self, batches: Sequence[str], scoring: Scoring) -> Added:
        out, written = Added(self._name), Counter[str]()
        self._total, self._began = sum(map(self._store.size, batches)), time.perf_counter()
        for done in scoring(self._portions(batches, out)):
            out.tokens += done.tokens
            out.read += done.read
            out.episodes += done.episodes
            out.left_out += done.left_out
            where = done.portion
            out.batches[where.batch] = out.batches.get(where.batch, 0) + done.episodes
            written.update(done.bytes)
            self._done = out.episodes + out.already + out.left_out
            rate = out.tokens / (time.perf_counter() - self._began)
            self._say(f"{where.batch}: {where.n} episodes from {where.start}, {done.tokens} tokens, {rate:.0f} tokens/s")
            self.passed(0)
        self._done = self._total
        self.passed(0)
        out.seconds, out.bytes = time.perf_counter() - self._began, dict(written)
        return out

    def _require_unused(self) -> None:
        """Refuse a name under which trajectories have scores already that nobody answers for."""
        for batch in self._store.batches():
            if self._name in self._store.named(batch):
                raise StoreError(
                    f"it is not written down who gave the scores '{self._name}' that batch '{batch}' of the store "
                    f"{self._store.path} has, so they may be another model's; choose another name"
                )

    def _portions(self, batches: Sequence[str], out: Added) -> Iterator[Found]:
        for batch in batches:
            digest = self._store.digest(batch)
            for start, members in self._unscored(batch, digest, out):
                yield Portion(batch, digest, start, len(members)), members

    def _unscored(self, batch: str, digest: str, out: Added) -> Iterator[tuple[int, list[Trajectory]]]:
        """Neighbours that are still to be scored, and the row of the first; none reaches into a file of scores behind it."""
        parts = self._parts(batch, digest)
        starts = {part.start for part in parts}
        enough = [part for part in parts if part.has(self._columns.top_k, self._columns.entropy)]
        done = {row for part in enough for row in range(part.start, part.start + part.n)}
        if len(done) == self._store.size(batch):
            out.already += sum(part.scored for part in enough)
            out.left_out += sum(part.n - part.scored for part in enough)
            return
        most = EPISODES if self._processes == 1 else min(EPISODES, math.ceil(self._total / (SHARES * self._processes)))
        members: list[Trajectory] = []
        first = numbers = tokens = 0
        for row, trajectory in enumerate(self._store.trajectories(batch, [self._name])):
            able = bool(trainable([trajectory]))
            scored = row in done or (able and self._suffices(trajectory.scores.get(self._name)))
            more = trajectory.n_action_tokens * (self._width + 2 * self._columns.top_k + 2)
            longer = sum(len(turn.prompt_ids) + len(turn.action_ids) for turn in trajectory.turns)
            full = len(members) == most or numbers + more > NUMBERS or tokens + longer > TOKENS
            if members and (scored or row in starts or full):
                yield first, members
                members = []
            if scored:
                out.already += able
                out.left_out += not able
                continue
            if not members:
                first, numbers, tokens = row, 0, 0
            members.append(trajectory)
            numbers += more
            tokens += longer
        if members:
            yield first, members

    def _parts(self, batch: str, digest: str) -> list[Part]:
        """The files of scores of a batch as it is; those of an earlier one of its name are deleted."""
        parts = self._files.parts(batch)
        for part in parts:
            if part.batch != digest:
                part.path.unlink(missing_ok=True)
        return [part for part in parts if part.batch == digest]

    def _suffices(self, scores: Scores | None) -> bool:
        """Whether what training itself put beside a trajectory is enough."""
        if scores is None or (self._columns.entropy and scores.entropy is None):
            return False
        return not self._columns.top_k or (scores.topk_ids is not None and scores.topk_ids.shape[1] >= self._columns.top_k)


def in_this_process(store: Store, scorer: TeacherScorer, name: str, columns: Columns) -> Scoring:
    """One portion after the other.

    Raises:
        UserError: when a top-k is wanted of a scorer that gives no distributions.
    """
    if (columns.top_k or columns.entropy) and "distribution" not in scorer.capabilities:
        raise UserError(f"scorer '{name}' gives no distributions, so there is no top-k and no entropy of them to keep")
    worker = PortionScorer(store, scorer, name, columns)
    return lambda portions: (worker.score(portion, members) for portion, members in portions)


def _bytes(n: int) -> str:
    return f"{n} B" if n < 1000 else f"{n / 1000:.1f} kB" if n < 1e6 else f"{n / 1e6:.2f} MB"
