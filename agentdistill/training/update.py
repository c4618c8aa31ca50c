"""One optimizer step: per-token streams in, new weights out. It knows no method by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from agentdistill.errors import UserError
from agentdistill.policies.model import CausalLM, chunk_rows, pad_right, token_budget_batches
from agentdistill.signals import Method, Streams
from agentdistill.training.score import Scored, common_vocabulary
from agentdistill.trajectory import FloatArray, IntArray


@dataclass(slots=True)
class Totals:
    """Sums over one optimizer step's tokens."""

    loss: float = 0.0
    clipped: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Columns of some student tokens as tensors on the model's device; `teacher` computes `[n, V]` when called."""

    ids: torch.Tensor
    old: torch.Tensor
    advantage: torch.Tensor
    kd_weight: torch.Tensor
    coef: torch.Tensor
    teacher: Callable[[], torch.Tensor] | None


def accumulate(
    student: CausalLM,
    method: Method,
    scored: Scored,
    streams: Streams,
    coef: FloatArray,
    segments: Sequence[int],
    budget: int,
    where: str,
) -> Totals:
    """Add the gradient of `Σ coef · loss_t` over these segments' tokens to the parameters' `.grad`.

    The sum does not depend on how the segments fall into micro-batches.

    Args:
        coef: `[n]` aggregation coefficients of this optimizer step, a row a token of the table.
        segments: indices into `scored.sequences`.
        budget: rows × longest in one pass, in tokens.
        where: names the step in errors.

    Raises:
        UserError: when the loss is not finite; no gradient of it has been used.
    """
    student.model.train(False)  # gradients flow all the same, and dropout would make the student another policy
    totals = Totals()
    chosen = [i for i in segments if np.any(coef[scored.sequences[i].rows] > 0)]
    for batch in token_budget_batches([len(scored.sequences[i].ids) for i in chosen], budget):
        members = [chosen[i] for i in batch]
        hidden = student.hidden(pad_right([scored.sequences[i].ids.tolist() for i in members], student.device))
        # What carries no loss never reaches the head.
        kept = [np.flatnonzero(coef[scored.sequences[i].rows] > 0) for i in members]
        place = np.array([(row, token) for row, tokens in enumerate(kept) for token in tokens])
        size = chunk_rows(student.vocab_size)
        losses = []
        for start in range(0, len(place), size):
            part = place[start : start + size]
            tokens = _tokens(scored, streams, coef, members, part, hidden.device, method.exact)
            columns = np.array([scored.sequences[members[row]].targets[token] - 1 for row, token in part])
            states = hidden[torch.as_tensor(part[:, 0]), torch.as_tensor(columns)]
            losses.append(_chunk_loss(student, method, states, tokens, totals, alone=len(place) <= size))
        loss = torch.stack(losses).sum()
        value = float(loss.detach())
        if not math.isfinite(value):
            names = sorted({scored.sequences[i].trajectory for i in members})
            raise UserError(f"the loss at {where} is {value} (trajectories {names} of the batch); the weights were not changed")
        loss.backward()  # type: ignore[no-untyped-call]
        totals.loss += value
    return totals


def _chunk_loss(
    student: CausalLM, method: Method, states: torch.Tensor, tokens: _Tokens, totals: Totals, *, alone: bool
) -> torch.Tensor:
    """Loss of a chunk. Unless it is alone, its logits are computed again in the backward pass: only one chunk's ever exist."""

    def forward(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logprobs = torch.log_softmax(student.logits(states), dim=-1)
        picked = logprobs.gather(1, tokens.ids[:, None])[:, 0]
        per_token = method.surrogate(picked, tokens.old, tokens.advantage)
        if tokens.teacher is not None:
            ours, theirs = common_vocabulary(logprobs, tokens.teacher())
            per_token = per_token + tokens.kd_weight * method.divergence(ours, theirs)
        clip = method.clipped(picked, tokens.old, tokens.advantage).sum()
        return (tokens.coef * per_token).sum(), clip

    loss, clip = forward(states) if alone else checkpoint(forward, states, use_reentrant=False)
    totals.clipped += float(clip)
    totals.tokens += len(states)
    return loss


def _tokens(
    scored: Scored,
    streams: Streams,
    coef: FloatArray,
    members: Sequence[int],
    part: IntArray,
    device: torch.device,
    exact: bool,
) -> _Tokens:
    """The columns of tokens `part` `[n, 2]` (place in `members`, index among that segment's targets)."""
    owners = [(scored.sequences[members[row]], token) for row, token in part]
    rows = np.array([segment.rows[token] for segment, token in owners])

    def column(values: FloatArray) -> torch.Tensor:
        return torch.as_tensor(values[rows], dtype=torch.float32, device=device)

    def teacher() -> torch.Tensor:
        pieces = []
        for row in np.unique(part[:, 0]):
            distribution = scored.answers[members[row]].distribution if scored.answers is not None else None
            assert distribution is not None  # `exact` methods are only run with teachers that give distributions
            pieces.append(distribution.logprobs(torch.as_tensor(part[part[:, 0] == row, 1])))
        return torch.cat(pieces).to(device)

    return _Tokens(
        ids=torch.as_tensor(np.array([segment.ids[segment.targets[token]] for segment, token in owners]), device=device),
        old=column(streams.anchor),
        advantage=column(streams.advantage),
        kd_weight=column(streams.kd_weight),
        coef=column(coef),
        teacher=teacher if exact else None,
    )
