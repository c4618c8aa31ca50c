"""What a plan asks of a machine: how long a model's passes take there. One answer is worked out from a device's figures."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Protocol

from agentdistill.cost.devices import Device
from agentdistill.cost.shape import Shape


@dataclass(frozen=True, slots=True)
class Passes:
    """Passes over sequences.

    Attributes:
        tokens: that are computed in all.
        batch: of them in one pass.
        length: of a sequence.
        scored: tokens whose log-probs are wanted.
    """

    tokens: float
    batch: float
    length: int
    scored: float

    @property
    def count(self) -> int:
        """How many passes there are."""
        return math.ceil(self.tokens / self.batch)


class Meter(Protocol):
    """Seconds that a machine takes."""

    def decode(self, shape: Shape, rows: float, context: int, steps: float) -> float:
        """`steps` tokens of each of `rows` messages, behind contexts that long."""
        ...

    def read(self, shape: Shape, rows: float, new: float, context: int) -> float:
        """`new` tokens of a prompt for each of `rows` episodes, behind contexts that long, and their messages' first tokens."""
        ...

    def score(self, shape: Shape, passes: Passes) -> float:
        """Forward, with log-probs and entropies of what is scored."""
        ...

    def train(self, shape: Shape, passes: Passes, again: bool = False) -> float:
        """Forward and backward.

        Args:
            again: whether layers are computed again in the backward pass.
        """
        ...

    def step(self, numbers: float) -> float:
        """One optimizer step over so many trained numbers."""
        ...

    def send(self, sent: float) -> float:
        """So many bytes from one process to another."""
        ...

    def ranked(self) -> Meter:
        """The same for trainer ranks, which may compute in other numbers."""
        ...


@dataclass(frozen=True, slots=True)
class Roofline:
    """A device by its figures: what is slower of computing and reading, and never less than launching the kernels.

    Attributes:
        width: bytes of a weight.
    """

    device: Device
    width: int = 4

    def decode(self, shape: Shape, rows: float, context: int, steps: float) -> float:
        """See `Meter`."""
        table = shape.vocabulary * shape.width
        read = self.width * (shape.body + table + float(shape.cached_numbers) * rows * context)
        computed = self._forward(2.0 * (shape.body + table) * rows)
        return steps * max(computed, read / (self.device.reached[2] * self.device.bandwidth), self._launched(shape))

    def read(self, shape: Shape, rows: float, new: float, context: int) -> float:
        """See `Meter`."""
        flops = rows * new * shape.forward_flops(max(2, context)) + 2.0 * rows * shape.vocabulary * shape.width
        return max(self._forward(flops), self._launched(shape))

    def score(self, shape: Shape, passes: Passes) -> float:
        """See `Meter`."""
        return max(self._forward(self._flops(shape, passes)), passes.count * self._launched(shape))

    def train(self, shape: Shape, passes: Passes, again: bool = False) -> float:
        """See `Meter`; the backward pass computes twice what the forward pass does."""
        times = 4 if again else 3
        computed = times * self._flops(shape, passes) / (self.device.reached[1] * self.device.flops[self.width])
        return max(computed, times * passes.count * self._launched(shape))

    def step(self, numbers: float) -> float:
        """See `Meter`. Gradients are read twice, their norm first; weights and two moments are read and written."""
        return 4 * 8 * numbers / (self.device.reached[2] * self.device.bandwidth)

    def send(self, sent: float) -> float:
        """See `Meter`."""
        return sent / self.device.link

    def ranked(self) -> Roofline:
        """See `Meter`: bf16 (see `cluster.shard`)."""
        return dataclasses.replace(self, width=2)

    def _forward(self, flops: float) -> float:
        return flops / (self.device.reached[0] * self.device.flops[self.width])

    def _launched(self, shape: Shape) -> float:
        return shape.layers * self.device.layer_seconds

    @staticmethod
    def _flops(shape: Shape, passes: Passes) -> float:
        return passes.tokens * shape.forward_flops(passes.length) + 2.0 * passes.scored * shape.vocabulary * shape.width
