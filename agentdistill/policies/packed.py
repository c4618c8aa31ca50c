"""Linear layers whose weights are laid out for small batches, while the weights stay as they are.

A decoding step multiplies a handful of rows with every weight of the model. The general matrix product lays a weight's blocks
out anew at each call, which for so few rows costs as much as the product itself. oneDNN takes weights that were laid out
before: on two cores, the layers of SmolLM2-135M and its head take 8 rows in two thirds of the time. The layout is a copy,
so it is made only once a rollout has taken some steps, and forgotten when the sampler is released, before weights change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeGuard

import torch
from torch import nn
from torch.backends import mkl, mkldnn

ROWS = range(4, 65)  # fewer are read as fast from the plain layout, more are multiplied as fast
STEPS = 8  # passes after which the copy pays
SMALLEST = 1 << 16  # elements of a weight below which calling costs more than multiplying


class PackedLinears:
    """Linear layers, computed from weights in oneDNN's own layout inside `active`.

    Args:
        layers: those in fp32 on a CPU are packed, the others left alone.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self._layers = [layer for layer in layers if packable(layer)]
        self._passes = 0
        self._packed: list[tuple[nn.Linear, Callable[[torch.Tensor], torch.Tensor]]] | None = None

    @contextlib.contextmanager
    def active(self, rows: int) -> Iterator[bool]:
        """A context for one decoding pass over so many rows, without gradients; results differ by rounding only.

        Its value says whether copies are used, which pays for other layers of the pass just as well.
        """
        self._passes += rows in ROWS
        if rows not in ROWS or self._passes <= STEPS:
            yield False
            return
        if self._packed is None:
            self._packed = [(layer, packed_forward([layer])) for layer in self._layers]
        for layer, forward in self._packed:
            layer.forward = forward  # type: ignore[assignment, method-assign]
        try:
            yield True
        finally:
            for layer, _ in self._packed:
                del layer.forward

    def forget(self) -> None:
        """Drop the copies: the weights are about to change, or the memory is wanted."""
        self._packed, self._passes = None, 0


def packable(layer: nn.Module, smallest: int = SMALLEST) -> TypeGuard[nn.Linear]:
    """Whether it is a plain linear layer in fp32 on a CPU, with at least so many weights."""
    if type(layer) is not nn.Linear or layer.weight.numel() < smallest or not mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32


def packed_forward(layers: Sequence[nn.Linear], rows: int | None = None) -> Callable[[torch.Tensor], torch.Tensor]:
    """`[n, …, inputs]` → what these layers, which have one input, say of it, side by side, from a copy of their weights.

    Args:
        rows: where it is known that `n` is at most this, and not far below, MKL's layout is taken if there is one, which is for
            one number of rows: the missing ones are filled up. It saves another seventh.
    """
    weights, biases = [layer.weight.detach() for layer in layers], [layer.bias for layer in layers]
    whole = weights[0] if len(weights) == 1 else torch.cat(weights)
    bias = None
    if any(each is not None for each in biases):
        pairs = zip(weights, biases, strict=True)
        bias = torch.cat([w.new_zeros(len(w)) if b is None else b.detach() for w, b in pairs])
    if rows is not None and mkl.is_available():  # type: ignore[no-untyped-call]
        return _fixed(whole, bias, rows)
    weight = torch.ops.mkldnn._reorder_linear_weight(whole)

    def forward(states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
        return out

    return forward


def _fixed(whole: torch.Tensor, bias: torch.Tensor | None, rows: int) -> Callable[[torch.Tensor], torch.Tensor]:
    weight = torch.ops.mkl._mkl_reorder_linear_weight(whole, rows)
    shape = whole.new_empty(1).expand(whole.shape)  # only the shape of the weight is read beside its packed copy

    def forward(states: torch.Tensor) -> torch.Tensor:
        n = len(states)
        if n < rows:
            states = torch.cat([states, states.new_zeros(rows - n, *states.shape[1:])])
        out: torch.Tensor = torch.ops.mkl._mkl_linear(states, weight, shape, bias, rows)
        return out[:n]

    return forward
