"""One optimizer step: per-token streams in, new weights out. It knows no method by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch

from agentdistill.errors import UserError
from agentdistill.policies.base import TeacherScores
from agentdistill.policies.model import CausalLM
from agentdistill.policies.shared import budget_batches, states_at
from agentdistill.signals import Method, Streams
from agentdistill.signals.parts import Lazy, Parts
from agentdistill.training.head import ChunkLoss, backward_through_head
from agentdistill.training.score import Scored
from agentdistill.trajectory import FloatArray, IntArray


@dataclass(slots=True)
class Totals:
    """Sums over one optimizer step's tokens.

    Attributes:
        low, high, dual: how many of them the lower, the upper and the dual clip hold.
        divergence: of `|kd_weight·D|`, nats.
    """

    loss: float = 0.0
    low: int = 0
    high: int = 0
    dual: int = 0
    divergence: float = 0.0
    tokens: int = 0

    @property
    def clipped(self) -> int:
        """How many of them any clip holds."""
        return self.low + self.high + self.dual

    def add(self, other: Totals) -> None:
        """Take another step's sums in."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


States = Callable[[CausalLM], torch.Tensor]
"""A model → the last hidden states `[n, d]` of a micro-batch's tokens that carry loss, in its graph."""
Backward = Callable[[CausalLM, States, ChunkLoss], None]
"""Gathers the gradient of a micro-batch's loss in a model's parameters."""


def plain_backward(student: CausalLM, states: States, loss: ChunkLoss) -> None:
    """Into `.grad`."""
    backward_through_head(student, states(student), loss)


def accumulate(
    student: CausalLM,
    method: Method,
    scored: Scored,
    streams: Streams,
    coef: FloatArray,
    segments: Sequence[int],
    budget: int,
    where: str,
    backward: Backward = plain_backward,
) -> Totals:
    """Add the gradient of `Σ coef · loss_t` over these segments' tokens to the parameters' `.grad`.

    The sum does not depend on how the segments fall into micro-batches. The student's logits at these tokens fill its columns
    of the table, where nobody has read those yet.

    Args:
        coef: `[n]` aggregation coefficients of this optimizer step, a row a token of the table.
        segments: indices into `scored.sequences`.
        budget: tokens that one pass computes.
        where: names the step in errors.
        backward: called once a micro-batch.

    Raises:
        UserError: when the loss is not finite; every gradient is cleared then, those of earlier micro-batches too.
    """
    student.model.train(False)  # gradients flow all the same, and dropout would make the student another policy
    totals = Totals()
    chosen = [i for i in segments if np.any(coef[scored.sequences[i].rows] > 0)]
    ids = [scored.sequences[i].ids.tolist() for i in chosen]
    for batch in budget_batches(ids, budget, student.packed):
        tokens = _Tokens(method, scored, streams, coef, [chosen[i] for i in batch], [ids[i] for i in batch])

        def loss(part: slice, logits: torch.Tensor, tokens: _Tokens = tokens) -> torch.Tensor:
            share = tokens.loss(part, logits, totals)
            value = float(share.detach())
            if not math.isfinite(value):
                whose = f"trajectories {tokens.trajectories} of the batch"
                raise UserError(f"the loss at {where} is {value} ({whose}); the weights were not changed")
            totals.loss += value
            return share

        try:
            backward(student, tokens.states, loss)
        except UserError:
            student.model.zero_grad(set_to_none=True)
            raise
    return totals


class _Tokens:
    """The `n` tokens of some segments that carry loss, and their loss. What carries none never reaches the head."""

    def __init__(
        self, method: Method, scored: Scored, streams: Streams, coef: FloatArray, members: Sequence[int], ids: list[list[int]]
    ) -> None:
        self._method, self._scored, self._streams, self._coef = method, scored, streams, coef
        self._unread = scored.student if scored.table.pending else None
        self._segments = [scored.sequences[i] for i in members]
        self._members, self._inputs = members, ids
        kept = [np.flatnonzero(coef[s.rows] > 0) for s in self._segments]
        self._owner: IntArray = np.repeat(np.arange(len(kept)), [len(each) for each in kept])
        self._token: IntArray = np.concatenate(kept)
        self._columns = [s.targets[each] - 1 for s, each in zip(self._segments, kept, strict=True)]
        self._ids = np.concatenate([s.ids[s.targets[each]] for s, each in zip(self._segments, kept, strict=True)])
        self._rows = np.concatenate([s.rows[each] for s, each in zip(self._segments, kept, strict=True)])

    @property
    def trajectories(self) -> list[int]:
        """Whose tokens they are."""
        return sorted({segment.trajectory for segment in self._segments})

    def states(self, student: CausalLM) -> torch.Tensor:
        """`[n, d]` last hidden states that the tokens are predicted from."""
        return states_at(student, self._inputs, self._columns)

    def loss(self, part: slice, logits: torch.Tensor, totals: Totals) -> torch.Tensor:
        """What these tokens, with logits `[c, V]`, add to the loss; they are counted in `totals`."""
        method, table = self._method, self._scored.table
        ids = torch.as_tensor(self._ids[part], device=logits.device)

        def column(values: FloatArray) -> torch.Tensor:
            return torch.as_tensor(values[self._rows[part]], dtype=logits.dtype, device=logits.device)

        logprobs = torch.log_softmax(logits, dim=-1)
        picked = logprobs.gather(1, ids[:, None])[:, 0]
        teacher = self._scores(self._scored.answers, part, logits.device)
        if self._unread is not None:
            self._unread.take(self._rows[part], ids, logprobs.detach(), teacher)
        advantage = column(self._streams.advantage)
        old = picked.detach() if self._streams.anchor is None else column(self._streams.anchor)
        per_token = method.surrogate(picked, old, advantage)
        if method.exact:
            parts = Parts(
                ids=ids,
                logprob=picked,
                student=lambda: logprobs,
                teacher_logprob=(lambda: column(table["teacher"])) if "teacher" in table else None,
                teacher=teacher,
                reference=self._scores(self._scored.references, part, logits.device),
                reward=lambda: column(table["reward"]),
            )
            divergence = column(self._streams.kd_weight) * method.divergence_loss(parts)
            totals.divergence += float(divergence.detach().abs().sum())
            per_token = per_token + divergence
        low, high, dual = method.clips(picked, old, advantage).sum(-1).tolist()
        totals.add(Totals(low=low, high=high, dual=dual, tokens=len(logits)))
        return (column(self._coef) * per_token).sum()

    def _scores(self, answers: Sequence[TeacherScores] | None, part: slice, device: torch.device) -> Lazy | None:
        """Computes `_distribution` of a scorer's answers when first called; None where there are none."""
        if answers is None or any(answers[i].distribution is None for i in self._members):
            return None
        own = [answers[i] for i in self._members]
        return cache(lambda: self._distribution(own, part).to(device))

    def _distribution(self, scores: Sequence[TeacherScores], part: slice) -> torch.Tensor:
        """`[c, V]` a scorer's log-probabilities at these tokens' positions."""
        pieces = []
        for i in np.unique(self._owner[part]):
            distribution = scores[i].distribution
            assert distribution is not None  # `_scores` has looked
            pieces.append(distribution.logprobs(torch.as_tensor(self._token[part][self._owner[part] == i])))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)
