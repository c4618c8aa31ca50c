"""How long a model's passes take: measured on this machine with some of its layers, or worked out from a device's figures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch

from agentdistill.cost.devices import Device
from agentdistill.cost.shape import Shape
from agentdistill.policies.base import Request, SamplingParams, ScoreRequest
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.training.head import backward_through_head

_DEPTHS = (1, 3)  # layers that are measured; what each more costs is the slope
_DECODED = (3, 11)  # tokens of a message, to tell a step from the prefill before it
_REPEATS = 3
_ROWS = 256  # that are decoded at a time, at most; by then arithmetic binds, and no more reading of weights
_TOKENS = 1024  # in one measured pass, about


class Meter(Protocol):
    """Seconds that the passes of a model take."""

    def decode(self, shape: Shape, rows: int, context: int) -> float:
        """One token of each of `rows` messages, behind contexts that long."""
        ...

    def score(self, shape: Shape, tokens: float, length: int, scored: float) -> float:
        """A forward pass over `tokens` in sequences that long, with log-probs and entropies of `scored` of them."""
        ...

    def train(self, shape: Shape, tokens: float, length: int, scored: float) -> float:
        """The same forward and backward."""
        ...


class Measured:
    """This machine's CPU: the library's own sampler, scorer and backward pass, on models of the same shape with few layers."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], float] = {}

    def decode(self, shape: Shape, rows: int, context: int) -> float:
        """See `Meter`. Beyond `_ROWS` a step takes as much longer as it has more rows."""
        beyond, rows = max(1.0, rows / _ROWS), min(rows, _ROWS)

        def once(lm: CausalLM) -> float:
            few, more = (self._generated(lm, rows, context, n) for n in _DECODED)
            return max(0.0, more - few) / (_DECODED[1] - _DECODED[0])

        return beyond * self._extended(("decode", shape.ref, rows, context), shape, once)

    @staticmethod
    def _generated(lm: CausalLM, rows: int, context: int, n: int) -> float:
        sampler = TransformersSampler(lm)
        requests = [Request(i, [1 + (i + j) % 50 for j in range(context)], i, frozenset()) for i in range(rows)]
        return _seconds(lambda: sampler.generate(requests, SamplingParams(max_tokens=n)))

    def score(self, shape: Shape, tokens: float, length: int, scored: float) -> float:
        """See `Meter`."""
        share = scored / tokens
        rows = max(1, _TOKENS // length)

        def once(lm: CausalLM) -> float:
            scorer = TransformersScorer(lm, budget=rows * length)
            targets = range(1, 1 + min(length - 1, max(1, round(share * length))))
            requests = [ScoreRequest([1 + (i + j) % 50 for j in range(length)], list(targets)) for i in range(rows)]
            return _seconds(lambda: scorer.score(requests)) / (rows * length)

        return tokens * self._extended(("score", shape.ref, length, round(share, 2)), shape, once)

    def train(self, shape: Shape, tokens: float, length: int, scored: float) -> float:
        """See `Meter`."""
        share = scored / tokens
        rows = max(1, _TOKENS // length)

        def once(lm: CausalLM) -> float:
            ids = torch.ones(rows, length, dtype=torch.long)
            n = max(1, round(share * length))

            def step() -> None:
                states = lm.hidden(ids)[:, :n].reshape(-1, shape.width)
                target = torch.log_softmax(lm.head(states.detach()).detach() * 0.5, -1)
                backward_through_head(lm, states, lambda part, logits: _divergence(logits, target[part]))

            return _seconds(step) / (rows * length)

        return tokens * self._extended(("train", shape.ref, length, round(share, 2)), shape, once)

    def _extended(self, key: tuple[Any, ...], shape: Shape, once: Callable[[CausalLM], float]) -> float:
        """What the whole depth takes, from a few layers'."""
        if key not in self._known:
            depths = [min(each, shape.layers) for each in _DEPTHS]
            taken = []
            for depth in depths:
                lm = CausalLM(shape.cut(depth), cast(Any, None), shape.ref)
                taken.append(once(lm))
            each = (taken[1] - taken[0]) / max(1, depths[1] - depths[0])
            self._known[key] = max(taken[0], taken[1] + max(0.0, each) * (shape.layers - depths[1]))
        return self._known[key]


def _divergence(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    own = torch.log_softmax(logits, -1)
    return (own.exp() * (own - target)).sum()


def _seconds(act: Callable[[], object]) -> float:
    """The median of a few runs after one that does not count."""
    act()
    taken = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


@dataclass(frozen=True, slots=True)
class Roofline:
    """A device by its figures: what is slower of computing and reading, and never less than launching the kernels.

    Attributes:
        width: bytes of a weight.
    """

    device: Device
    width: int = 4

    def decode(self, shape: Shape, rows: int, context: int) -> float:
        """See `Meter`."""
        flops = 2.0 * (shape.body + shape.vocabulary * shape.width) * rows
        read = self.width * (shape.body + shape.vocabulary * shape.width + float(shape.cached_numbers) * rows * context)
        forward, _, bandwidth = self.device.reached
        computed = flops / (forward * self.device.flops[self.width])
        return max(computed, read / (bandwidth * self.device.bandwidth), shape.layers * self.device.layer_seconds)

    def score(self, shape: Shape, tokens: float, length: int, scored: float) -> float:
        """See `Meter`."""
        return self._flops(shape, tokens, length, scored) / (self.device.reached[0] * self.device.flops[self.width])

    def train(self, shape: Shape, tokens: float, length: int, scored: float) -> float:
        """See `Meter`; the backward pass computes twice what the forward pass does."""
        return 3 * self._flops(shape, tokens, length, scored) / (self.device.reached[1] * self.device.flops[self.width])

    @staticmethod
    def _flops(shape: Shape, tokens: float, length: int, scored: float) -> float:
        return tokens * shape.forward_flops(length) + 2.0 * scored * shape.vocabulary * shape.width
