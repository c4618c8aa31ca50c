"""A gradient set aside, so that another one can be held against it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.distributed.tensor import DTensor


class Aside:
    """What stands in some parameters' `.grad`, and what stood there before. Of sharded ones, this process's shard.

    Squares are given, not norms, since those of shards add up.
    """

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self._parameters = list(parameters)
        self._kept: list[torch.Tensor] | None = None

    def take(self) -> float:
        """Move the gradient to the CPU, so that there is none; the sum of its squares."""
        self._kept = [g.to("cpu", copy=True) for g in self._gradient()]
        for parameter in self._parameters:
            parameter.grad = None
        return sum(float(g.square().sum()) for g in self._kept)

    def difference(self) -> float:
        """Sum of squares of the gradient less the one set aside, which is 0 where none was."""
        gradient = self._gradient()
        others = self._kept or [torch.zeros(()) for _ in gradient]
        return sum(float((g - o.to(g.device)).square().sum()) for g, o in zip(gradient, others, strict=True))

    def forget(self) -> None:
        """Drop the one set aside."""
        self._kept = None

    def _gradient(self) -> list[torch.Tensor]:
        return [_own(torch.zeros_like(p) if p.grad is None else p.grad).detach() for p in self._parameters]


def _own(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
