"""Linear layers whose weights are laid out for small batches, while the weights stay as they are.

A decoding step multiplies a handful of rows with every weight of the model. The general matrix product lays a weight's blocks
out anew at each call, which for so few rows costs as much as the product itself. oneDNN takes weights that were laid out
before: on two cores, the layers of SmolLM2-135M and its head take 8 rows in two thirds of the time. The layout is a copy,
so it is made only once a rollout has taken some steps, and forgotten when the sampler is released, before weights change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

ROWS = range(4, 65)  # fewer are read as fast from the plain layout, more are multiplied as fast
STEPS = 8  # passes after which the copy pays
SMALLEST = 1 << 16  # elements of a weight below which calling costs more than multiplying


class PackedLinears:
    """The linear layers of a model, computed from weights in oneDNN's own layout inside `active`.

    Args:
        model: in fp32 on a CPU; of any other, nothing is packed.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._passes = 0
        self._packed: list[tuple[nn.Linear, Callable[[torch.Tensor], torch.Tensor]]] | None = None

    @contextlib.contextmanager
    def active(self, rows: int) -> Iterator[None]:
        """A context for one decoding pass over so many rows, without gradients; results differ by rounding only."""
        self._passes += rows in ROWS
        if rows not in ROWS or self._passes <= STEPS:
            yield
            return
        if self._packed is None:
            self._packed = [(layer, _forward(layer)) for layer in _packable(self._model)]
        for layer, forward in self._packed:
            layer.forward = forward  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            for layer, _ in self._packed:
                del layer.forward

    def forget(self) -> None:
        """Drop the copies: the weights are about to change, or the memory is wanted."""
        self._packed, self._passes = None, 0


def _packable(model: nn.Module) -> Iterator[nn.Linear]:
    for layer in model.modules() if torch.backends.mkldnn.is_available() else ():  # type: ignore[no-untyped-call]
        if type(layer) is not nn.Linear or layer.weight.numel() < SMALLEST:
            continue
        if layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32:
            yield layer


def _forward(layer: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
    bias = None if layer.bias is None else layer.bias.detach()

    def forward(states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
        return out

    return forward
