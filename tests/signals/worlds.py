"""A tiny autoregressive model whose every sequence is written down, so that expectations are sums."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agentdistill.signals import BASELINES, Method, TokenTable
from agentdistill.signals.surrogate import ppo

V, L = 3, 3
SEQUENCES = list(itertools.product(range(V), repeat=L))
PREFIXES = [p for n in range(L) for p in itertools.product(range(V), repeat=n)]
ROW = {p: i for i, p in enumerate(PREFIXES)}
POSITIONS = torch.tensor([[ROW[s[:t]] for t in range(L)] for s in SEQUENCES])  # [27, L] prefix of each token
TOKENS = torch.tensor(SEQUENCES)


@dataclass
class World:
    """Student logits (the parameters), and each model's log-probabilities `[n_prefix, V]`; `sampler` is who rolls out."""

    logits: Tensor
    student: Tensor
    teacher: Tensor
    reference: Tensor
    sampler: Tensor

    @classmethod
    def random(cls, seed: int = 7) -> World:
        generator = torch.Generator().manual_seed(seed)
        student, teacher, reference = (
            torch.randn(len(PREFIXES), V, dtype=torch.float64, generator=generator) for _ in range(3)
        )
        logprobs = torch.log_softmax(student.requires_grad_(), -1)
        return cls(student, logprobs, *(torch.log_softmax(side, -1) for side in (teacher, reference)), logprobs.detach())

    def sampled(self, table: Tensor) -> Tensor:
        """`[27, L]` log-probability of each token of each sequence."""
        return table[POSITIONS, TOKENS]

    def gradient(self, objective: Tensor) -> Tensor:
        return torch.autograd.grad(objective, self.logits, retain_graph=True)[0]

    @property
    def chance(self) -> Tensor:
        """`[27]` probability that each sequence is sampled."""
        return self.sampled(self.sampler).sum(1).exp()

    def expected(self, divergence: Tensor) -> Tensor:
        """Mean over the sampler's states of a per-prefix divergence `[n_prefix]`, summed over positions."""
        return (self.chance[:, None] * divergence[POSITIONS]).sum()

    def table(self, make_table: Callable[..., TokenTable], method: Method, **episodes: Any) -> TokenTable:
        """Every sequence once, as two steps of 1 and 2 tokens, with what `method` measures."""
        student = self.student.detach()
        rkl = (student.exp() * (student - self.teacher)).sum(-1)
        by_prefix = {"rkl": rkl, "prefix": torch.arange(len(PREFIXES))}
        by_prefix |= {name: measure(student, self.teacher) for name, measure in method.measures.items()}
        by_token = {"logprob": self.sampler, "recomputed": student, "teacher": self.teacher, "reference": self.reference}
        by_token["behaviour"] = self.sampler
        return make_table(
            [[1, L - 1]] * len(SEQUENCES),
            **{name: values[POSITIONS].flatten().numpy() for name, values in by_prefix.items()},
            **{name: self.sampled(values).flatten().numpy() for name, values in by_token.items()},
            **episodes,
        )


def advantages(world: World, make_table: Callable[..., TokenTable], spec: Any, **episodes: Any) -> Tensor:
    """`[27, L]` through the token table and the method, as the trainer gets them."""
    method = Method.load(spec)
    table = world.table(make_table, method, **episodes)
    return torch.tensor(method.apply(table).advantage[table.is_action]).reshape(-1, L)


def policy_gradient(world: World, make_table: Callable[..., TokenTable], spec: Any) -> Tensor:
    """The gradient of the expected surrogate loss at the student, whose own log-probs the ratio is taken against."""
    logprob = world.sampled(world.student)
    loss = ppo(logprob, logprob.detach(), advantages(world, make_table, spec))
    return world.gradient((world.chance[:, None] * loss).sum())


def kl(p: Tensor, q: Tensor) -> Tensor:
    """`[n_prefix]` KL(p‖q), written out."""
    return (p.exp() * (p - q)).sum(-1)


def assert_same(a: Tensor, b: Tensor) -> None:
    assert b.abs().max() > 1e-2  # an oracle that vanishes would prove nothing
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@BASELINES.register("test-prefix-number")
def prefix_number(table: TokenTable) -> Any:
    """Any function of the position."""
    return table.on_actions("prefix") - 3.0
