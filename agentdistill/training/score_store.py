"""Asking a scorer about a store's trajectories: the same questions that training asks, the answers put beside them for good."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from agentdistill.errors import StoreError, UserError
from agentdistill.policies import model as model_module
from agentdistill.policies.base import Distribution, ScoreRequest, TeacherScorer, TeacherScores
from agentdistill.store import Store
from agentdistill.store_scores import Identity, Part, ScoreFiles, sizes
from agentdistill.training.score import Segment, sequences_of, trainable
from agentdistill.trajectory import FloatArray, Scores, Trajectory

EPISODES = 128
"""Trajectories asked about at one time, at most: what a killed process loses."""
NUMBERS = 1 << 27
"""Numbers that their answers may hold, 4 bytes each: hidden states, and the top-k with its ids."""


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

    Args:
        identity: who the scorer is.
        name: its name in the store.
        top_k: ids to keep a token, with their log-probs; 0: none.
        entropy: keep the entropy of every distribution.
        width: numbers a token that the scorer's answers hold.
        say: takes a line as trajectories are scored.
        tick: takes how many are done, and of how many.

    Raises:
        UserError: when a top-k is wanted of a scorer that gives no distributions.
    """

    def __init__(
        self, store: Store, scorer: TeacherScorer, identity: Identity, name: str, *, top_k: int = 0, entropy: bool = False,
        width: int = 0, say: Callable[[str], None] = lambda _: None, tick: Callable[[int, int], None] = lambda a, b: None,
    ) -> None:  # fmt: skip
        if (top_k or entropy) and "distribution" not in scorer.capabilities:
            raise UserError(f"scorer '{name}' gives no distributions, so there is no top-k and no entropy of them to keep")
        self._store, self._scorer, self._identity, self._name = store, scorer, identity, name
        self._top_k, self._entropy, self._width, self._say, self._tick = top_k, entropy, width, say, tick
        self._files: ScoreFiles = store.scores(name)
        self._known = self._files.identity() is not None

    def run(self, batches: Sequence[str]) -> Added:
        """Score what is not scored yet, in the batches' order.

        Raises:
            StoreError: when the name is another model's, or nobody's; when a file is damaged, or the disk refuses. What was
                scored before it stays.
        """
        if not self._known:
            self._require_unused()
        self._files.claim(self._identity)
        out, total = Added(self._name), sum(map(self._store.size, batches))
        written, began = Counter[str](), time.perf_counter()
        for batch in batches:
            digest = self._store.digest(batch)
            for start, members in self._portions(batch, out):
                started = time.perf_counter()
                part, tokens = self._score(batch, digest, start, members, out)
                written.update(sizes([part]))
                rate = tokens / (time.perf_counter() - started)
                self._say(f"{batch}: {len(members)} episodes from {start}, {tokens} tokens, {rate:.0f} tokens/s")
                self._tick(out.episodes + out.already + out.left_out, total)
        self._tick(total, total)
        out.seconds, out.bytes = time.perf_counter() - began, dict(written)
        return out

    def _require_unused(self) -> None:
        """Refuse a name under which trajectories have scores already that nobody answers for."""
        for batch in self._store.batches():
            if self._name in self._store.named(batch):
                raise StoreError(
                    f"it is not written down who gave the scores '{self._name}' that batch '{batch}' of the store "
                    f"{self._store.path} has, so they may be another model's; choose another name"
                )

    def _score(self, batch: str, digest: str, start: int, members: Sequence[Trajectory], out: Added) -> tuple[Part, int]:
        rows = trainable(members)
        own = sequences_of(rows)
        answered = ask(self._scorer, rows, own, as_student=self._identity.prompt == "student", top_k=self._top_k)
        scores = {id(t): s if self._entropy else _without_entropy(s) for t, s in zip(rows, answered, strict=True)}
        row = [(t.id, scores.get(id(t))) for t in members]
        part = self._files.write(batch, digest, start, row, k=self._top_k, entropy=self._entropy)
        tokens = sum(t.n_action_tokens for t in rows)
        out.tokens += tokens
        out.read += sum(len(_request(s, self._identity.prompt == "student").ids) for s in own)
        out.episodes += len(rows)
        out.left_out += len(members) - len(rows)
        out.batches[batch] = out.batches.get(batch, 0) + len(rows)
        return part, tokens

    def _portions(self, batch: str, out: Added) -> Iterator[tuple[int, list[Trajectory]]]:
        """Neighbours that are still to be scored, and the row of the first; none reaches into a file of scores behind it."""
        parts = self._files.parts(batch)
        starts = {part.start for part in parts}
        enough = [part for part in parts if part.has(self._top_k, self._entropy)]
        done = {row for part in enough for row in range(part.start, part.start + part.n)}
        if len(done) == self._store.size(batch):
            out.already += sum(part.scored for part in enough)
            out.left_out += sum(part.n - part.scored for part in enough)
            return
        members: list[Trajectory] = []
        first = numbers = 0
        for row, trajectory in enumerate(self._store.trajectories(batch, [self._name])):
            able = bool(trainable([trajectory]))
            scored = row in done or (able and self._suffices(trajectory.scores.get(self._name)))
            more = trajectory.n_action_tokens * (self._width + 2 * self._top_k + 2)
            if members and (scored or row in starts or len(members) == EPISODES or numbers + more > NUMBERS):
                yield first, members
                members = []
            if scored:
                out.already += able
                out.left_out += not able
                continue
            if not members:
                first, numbers = row, 0
            members.append(trajectory)
            numbers += more
        if members:
            yield first, members

    def _suffices(self, scores: Scores | None) -> bool:
        """Whether what training itself put beside a trajectory is enough."""
        if scores is None or (self._entropy and scores.entropy is None):
            return False
        return not self._top_k or (scores.topk_ids is not None and scores.topk_ids.shape[1] >= self._top_k)


def ask(
    scorer: TeacherScorer, trajectories: Sequence[Trajectory], sequences: Sequence[Segment], *, as_student: bool = False,
    top_k: int = 0,
) -> list[Scores]:  # fmt: skip
    """What a scorer says of the student's tokens: an answer a trajectory, entropies where it gives them.

    Args:
        trajectories: `trainable` ones.
        sequences: theirs, of `sequences_of`.
        as_student: show it the student's prompts even where a trajectory has others for its teacher.
        top_k: its likeliest ids to keep a token; fewer where its vocabulary is smaller.

    Raises:
        UserError: naming the trajectory with a log-prob that is not finite.
    """
    answers = scorer.score([_request(sequence, as_student) for sequence in sequences])
    owned: list[list[TeacherScores]] = [[] for _ in trajectories]
    for sequence, answer in zip(sequences, answers, strict=True):
        owned[sequence.trajectory].append(answer)
    out = [_joined(each, top_k) for each in owned]
    for trajectory, scores in zip(trajectories, out, strict=True):
        if not np.isfinite(scores.logprobs).all():
            raise UserError(f"scorer '{scorer.name}' gave a log-prob that is not finite for trajectory '{trajectory.id}'")
    return out


def _request(sequence: Segment, as_student: bool) -> ScoreRequest:
    return ScoreRequest(sequence.ids.tolist(), sequence.targets.tolist()) if as_student else sequence.teacher


def _joined(answers: Sequence[TeacherScores], top_k: int) -> Scores:
    """A trajectory's answers, a segment each, as one: segments come in the order of its tokens."""
    entropies = [answer.entropy for answer in answers]
    entropy = None if any(each is None for each in entropies) else _numbers([e for e in entropies if e is not None])
    scores = Scores(_numbers([answer.logprobs for answer in answers]), entropy)
    if top_k:
        pairs = [
            _top(answer.distribution, len(answer.logprobs), top_k) for answer in answers if answer.distribution is not None
        ]
        scores.topk_logprobs, scores.topk_ids = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return scores


@torch.no_grad()
def _top(distribution: Distribution, n: int, k: int) -> tuple[FloatArray, np.ndarray]:
    """`[n, k]` log-probs, falling, and ids of the likeliest tokens; no more than a chunk of distributions at one time."""
    width = distribution.logprobs(slice(0, 1)).shape[-1]
    size = max(1, model_module.CHUNK_ELEMENTS // width)
    tops = [distribution.logprobs(slice(start, start + size)).topk(min(k, width), -1) for start in range(0, n, size)]
    values, ids = torch.cat([top.values for top in tops]), torch.cat([top.indices for top in tops])
    return values.double().cpu().numpy(), ids.cpu().numpy()


def _numbers(parts: Sequence[torch.Tensor]) -> FloatArray:
    joined: FloatArray = torch.cat(list(parts)).double().cpu().numpy()
    return joined


def _without_entropy(scores: Scores) -> Scores:
    return Scores(scores.logprobs, None, scores.topk_ids, scores.topk_logprobs)


def _bytes(n: int) -> str:
    return f"{n} B" if n < 1000 else f"{n / 1000:.1f} kB" if n < 1e6 else f"{n / 1e6:.2f} MB"
