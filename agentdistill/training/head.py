"""A loss through the output head, a chunk of positions at a time, so that [tokens × vocabulary] never exists whole.

The body's last hidden states are taken as given. A chunk's logits are made, their loss is differentiated down to the states
and the head's weight at once, and the chunk is forgotten before the next: nothing is kept, and nothing is computed twice. What
has gathered at the states then goes through the body in one backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agentdistill.errors import UserError
from agentdistill.policies.model import CausalLM, chunk_rows

ChunkLoss = Callable[[slice, Tensor], Tensor]
"""Which positions, and their logits `[c, V]`, differentiable → their share of the loss, a number."""


def backward_through_head(lm: CausalLM, states: Tensor, loss: ChunkLoss) -> None:
    """Add the gradient of `Σ loss(chunk)` to the `.grad` of the head's and the body's parameters.

    It is summed over chunks in fp32 (float64 in a float64 model) whatever the parameters are stored in. A weight that is tied
    to the embeddings gets both its gradients.

    Args:
        states: `[n, d]` last hidden states at the positions that carry loss, in the body's graph, which is used up.
        loss: called once a chunk, in order. What it raises comes through; some chunks' gradients are in `.grad` already then,
            and it is for the caller to clear them.

    Raises:
        UserError: when the head is more than one matrix and its bias, such as one with an adapter around it.
    """
    trained, exact = _trained(lm), _exact(states)
    totals = [_gathering(p, exact) for p in trained]
    at_states = _in_chunks(lm, states, loss, totals)
    for parameter, total in zip(trained, totals, strict=True):
        if total is not parameter.grad and parameter.grad is not None:
            parameter.grad += total.to(parameter.dtype)
    states.backward(at_states.to(states.dtype))  # type: ignore[no-untyped-call]


def loss_through_head(lm: CausalLM, states: Tensor, loss: ChunkLoss) -> Tensor:
    """The same as a step of a forward pass: a number (0) whose backward pass gives those gradients to autograd.

    So they reach whoever gathers a parameter's gradients by autograd's hooks, as sharded parameters do. A chunk's loss is
    called, and the gradients are made, in the forward pass.
    """
    out: Tensor = _Through.apply(states, lm, loss, *_trained(lm))  # type: ignore[no-untyped-call]
    return out


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, lm: CausalLM, loss: ChunkLoss, *trained: Tensor) -> Tensor:
        totals = [torch.zeros_like(p, dtype=_exact(states)) for p in trained]
        with torch.enable_grad():
            at_states = _in_chunks(lm, states, loss, totals)
        kinds = [states.dtype, *(p.dtype for p in trained)]
        ctx.gradients = [each.to(kind) for each, kind in zip([at_states, *totals], kinds, strict=True)]
        return states.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        at_states, *totals = ctx.gradients
        return at_states, None, None, *totals


def _trained(lm: CausalLM) -> list[Tensor]:
    """The head's parameters that are trained."""
    head = lm.head
    if type(head) is not nn.Linear:
        raise UserError(
            f"the output head of model '{lm.name}' is a {type(head).__name__}; only a plain linear one can be trained"
        )
    return [p for p in (head.weight, head.bias) if p is not None and p.requires_grad]


def _exact(states: Tensor) -> torch.dtype:
    """What gradients are summed in."""
    return torch.float64 if states.dtype == torch.float64 else torch.float32


def _in_chunks(lm: CausalLM, states: Tensor, loss: ChunkLoss, totals: Sequence[Tensor]) -> Tensor:
    """`[n, d]` the gradient of `Σ loss(chunk)` at the states; that of the head's trained parameters is added to `totals`."""
    head, exact = lm.head, _exact(states)
    given, weight = states.detach().to(exact), head.weight.detach().to(exact)
    at_states = torch.empty_like(given)
    n = len(given)
    chunks = -(-n // chunk_rows(head))
    for k in range(chunks):
        part = slice(n * k // chunks, n * (k + 1) // chunks)  # of equal size: no more memory than the number of chunks asks for
        with torch.no_grad():
            logits = lm.logits(states[part])
        (slope,) = torch.autograd.grad(loss(part, logits.requires_grad_()), logits)
        del logits
        torch.mm(slope, weight, out=at_states[part])
        for total in totals:
            if total.ndim == 1:
                total += slope.sum(0)
            else:
                total.addmm_(slope.T, given[part])
        del slope
    return at_states


def _gathering(parameter: Tensor, exact: torch.dtype) -> Tensor:
    """Where a parameter's gradient is summed: in its `.grad` itself where that is exact enough, otherwise beside it.

    Autograd would make a whole gradient of the weight for every chunk first, and add it then.
    """
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad if parameter.dtype == exact else torch.zeros_like(parameter, dtype=exact)
