"""Random distributions, and what any divergence needs to be called on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agentdistill.signals import DIVERGENCES, Choice

INF = float("inf")


def logits(n: int, size: int, seed: int, scale: float = 1.5) -> Tensor:
    """`[n, size]` float64 logits."""
    return scale * torch.randn(n, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def probs(n: int, size: int, seed: int) -> list[list[float]]:
    """`[n][size]` probabilities as plain numbers, for definitions written out in loops."""
    return torch.softmax(logits(n, size, seed), -1).tolist()


@dataclass
class Case:
    """Logits of student, teacher and reference `[n, V]` and sampled ids `[n]`, to call one divergence on."""

    spec: Any
    student: Tensor
    teacher: Tensor
    reference: Tensor
    ids: Tensor

    @classmethod
    def random(cls, spec: Any, n: int = 5, size: int = 7, seed: int = 0) -> Case:
        ids = torch.randint(size, (n,), generator=torch.Generator().manual_seed(seed))
        return cls(spec, logits(n, size, seed + 1).requires_grad_(), logits(n, size, seed + 2), logits(n, size, seed + 3), ids)

    @property
    def choice(self) -> Choice[Any]:
        return DIVERGENCES.resolve(self.spec)

    def data(self) -> list[Tensor]:
        """What the divergence takes, in the order of the registry's convention."""
        needs = self.choice.needs
        sides = [torch.log_softmax(side, -1) for side in (self.student, self.teacher)]
        if "distribution" not in needs:
            sides = [side.gather(-1, self.ids[:, None])[:, 0] for side in sides]
            sides = sides if "teacher" in needs else sides[:1]
        if "reference-distribution" in needs:
            sides.append(torch.log_softmax(self.reference, -1))
        sides = [*sides, self.ids] if "ids" in needs else sides
        return [*sides, self.reward] if "rewards" in needs else sides

    @property
    def reward(self) -> Tensor:
        """`[n]` 0 or 1, from the reference's logits, so that a token keeps its own however tokens and ids are ordered."""
        return (self.reference.logsumexp(-1) > 2.9).double()

    def value(self) -> Tensor:
        return self.choice(*self.data())

    def gradient(self) -> Tensor:
        return torch.autograd.grad(self.value().sum(), self.student)[0]
