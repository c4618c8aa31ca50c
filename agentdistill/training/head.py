"""A loss through the output head, a chunk of positions at a time, so that [tokens × vocabulary] never exists whole.

The body's last hidden states are taken as given. A chunk's logits are made, their loss is differentiated down to the states
and the head's weight at once, and the chunk is forgotten before the next: nothing is kept, and nothing is computed twice. What
has gathered at the states then goes through the body in one backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

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
    head = lm.head
    if type(head) is not nn.Linear:
        raise UserError(
            f"the output head of model '{lm.name}' is a {type(head).__name__}; only a plain linear one can be trained"
        )
    exact = torch.float64 if states.dtype == torch.float64 else torch.float32
    given, weight = states.detach().to(exact), head.weight.detach().to(exact)
    at_states = torch.empty_like(given)
    sums = [_Sum(p, exact) for p in (head.weight, head.bias) if p is not None and p.requires_grad]
    n = len(given)
    chunks = -(-n // chunk_rows(head))
    for k in range(chunks):
        part = slice(n * k // chunks, n * (k + 1) // chunks)  # of equal size: no more memory than the number of chunks asks for
        with torch.no_grad():
            logits = lm.logits(states[part])
        (slope,) = torch.autograd.grad(loss(part, logits.requires_grad_()), logits)
        del logits
        torch.mm(slope, weight, out=at_states[part])
        for each in sums:
            each.add(slope, given[part])
        del slope
    for each in sums:
        each.hand_over()
    states.backward(at_states.to(states.dtype))  # type: ignore[no-untyped-call]


class _Sum:
    """A head parameter's gradient: in its `.grad` itself where that is exact enough, otherwise beside it until `hand_over`.

    Autograd would make a whole gradient of the weight for every chunk first, and add it then.
    """

    def __init__(self, parameter: Tensor, exact: torch.dtype) -> None:
        self._parameter = parameter
        self._inside = parameter.dtype == exact
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        self._total = parameter.grad if self._inside else torch.zeros_like(parameter, dtype=exact)

    def add(self, slope: Tensor, states: Tensor) -> None:
        """The share of a chunk: `slope` `[c, V]` at its logits, `states` `[c, d]`."""
        if self._parameter.ndim == 1:
            self._total += slope.sum(0)
        else:
            self._total.addmm_(slope.T, states)

    def hand_over(self) -> None:
        """Put what was summed beside `.grad` into it."""
        if not self._inside and self._parameter.grad is not None:
            self._parameter.grad += self._total.to(self._parameter.dtype)
