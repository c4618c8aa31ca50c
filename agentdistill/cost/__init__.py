"""What an experiment will cost: memory, time and devices, before any is spent.

Sizes are counted on Transformers' own modules without their weights. Times are measured on this machine with models of the same
shape that have few layers, or worked out from a device's figures. Both know the engine as it is: fp32, one process.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentdistill.config import Experiment
from agentdistill.cost.devices import HERE, device
from agentdistill.cost.estimate import PHASES, evaluating, memory, models_of, peak, seconds
from agentdistill.cost.meters import Measured, Meter, Roofline
from agentdistill.cost.work import Lengths, allowed, like, work_of
from agentdistill.doctor.machine import machine_memory
from agentdistill.engines.registry import judge
from agentdistill.engines.section import LOCAL

GIB = 1 << 30
_LOWER = {
    "imitating": "lower sft.batch",
    "playing": "lower train.tasks, train.rollouts or env.max_context",
    "scoring": "lower train.token_budget",
    "updating": "lower train.token_budget",
}
_ROOM = 0.92  # of a device's memory that allocators can use


@dataclass(frozen=True, slots=True)
class Plan:
    """An estimate.

    Attributes:
        device: what it is for.
        parameters: of each model, by its reference; those that were guessed from a name in `guessed`.
        lengths: of a mean episode.
        bytes: by what they hold; those of `estimate.PHASES` are not there at the same time.
        peak: bytes at the worst moment, in one process.
        capacity: bytes of one device.
        devices: how many hold it, where student and optimizer, teachers and references are sharded evenly.
        seconds: of an iteration, by what they are spent on.
        evaluating: seconds of all evaluations.
        iterations: in the whole run.
        tokens_per_second: the student's own tokens over all seconds of an iteration.
        notes: what of the experiment is not counted.
    """

    device: str
    parameters: dict[str, int]
    guessed: list[str]
    lengths: Lengths
    bytes: dict[str, float]
    peak: float
    capacity: float
    devices: int
    seconds: dict[str, float]
    evaluating: float
    iterations: int
    tokens_per_second: float
    notes: list[str]

    @property
    def hours(self) -> float:
        """Of the whole run, without its supervised stages."""
        return (self.iterations * sum(self.seconds.values()) + self.evaluating) / 3600

    @property
    def binds(self) -> str:
        """What takes the most memory, and the most time, in words."""
        slow = max(self.seconds, key=lambda name: self.seconds[name])
        large = max(self.bytes, key=lambda name: self.bytes[name])
        share = self.seconds[slow] / max(1e-12, sum(self.seconds.values()))
        return f"time: {slow} ({share:.0%} of an iteration); memory: {large} ({self.bytes[large] / self.peak:.0%} of the peak)"

    @property
    def lines(self) -> list[str]:
        """What a reader wants of it."""
        sizes = ", ".join(f"{ref} {_count(n)}" + (" (guessed)" if ref in self.guessed else "")
                          for ref, n in self.parameters.items())  # fmt: skip
        own, fits = self.lengths, self.peak <= _ROOM * self.capacity
        parts = ", ".join(f"{name} {n / GIB:.2f}" for name, n in self.bytes.items())
        times = ", ".join(f"{name} {n:.2f}" for name, n in self.seconds.items())
        held = "it fits one" if fits else f"it takes {self.devices} of them, its weights and optimizer sharded evenly"
        if not self.devices:
            largest = max(PHASES, key=lambda name: self.bytes[name])
            held = f"no number of them holds it, for each would need all of '{largest}'; {_LOWER[largest]}"
        return [
            f"on {self.device}",
            f"models: {sizes}",
            f"an episode: {own.turns:.1f} turns, {own.written:.0f} tokens written, {own.read:.0f} read ({own.source})",
            f"memory, GiB: {parts}",
            f"peak {self.peak / GIB:.2f} GiB of {self.capacity / GIB:.0f}: {held}",
            f"an iteration, s: {times}; {self.tokens_per_second:,.0f} tokens/s of the student's",
            f"{self.iterations} iterations {_time(self.iterations * sum(self.seconds.values()))}, evaluations "
            f"{_time(self.evaluating)}: {_time(3600 * self.hours)}, supervised stages not counted",
            f"what binds: {self.binds}",
            *(f"note: {note}" for note in self.notes),
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        out = {name: getattr(self, name) for name in Plan.__dataclass_fields__}
        out["lengths"] = {name: getattr(self.lengths, name) for name in Lengths.__dataclass_fields__}
        return {**out, "hours": self.hours, "binds": self.binds}


def estimate(config: Experiment, where: str = HERE, episodes: str | Path | None = None) -> Plan:
    """What an experiment will cost (see `api.plan`).

    Args:
        where: `here`, or a device by name.
        episodes: a run whose episodes are taken for this one's; the longest allowed ones by default.
    """
    lengths = allowed(config) if episodes is None else like(episodes, config.train.token_budget)
    models, work = models_of(config), work_of(config, lengths)
    meter: Meter
    if where == HERE:
        meter, capacity, name = Measured(), float(machine_memory()[0]), f"this machine ({os.cpu_count()} CPUs), measured"
        parts = memory(config, models, work, base=_resident())
    else:
        found = device(where)
        meter, capacity, name = Roofline(found), found.memory, f"{found.name}, by its maker's figures"
        parts = memory(config, models, work, base=1.0 * GIB, gpu=True)  # CUDA's context and its libraries'
    taken = seconds(models, work, meter)
    shapes = {each.ref: each for each in (models.student, *models.scorers)}
    return Plan(
        name, {ref: each.parameters for ref, each in shapes.items()}, [ref for ref, each in shapes.items() if each.guessed],
        lengths, parts, peak(parts), capacity, _devices(parts, _ROOM * capacity), taken, evaluating(work, taken),
        work.iterations, work.written / max(1e-12, sum(taken.values())), _notes(config),
    )  # fmt: skip


def _count(n: int) -> str:
    return f"{n / 1e6:,.1f} M" if n >= 1e6 else f"{n / 1e3:,.0f} K"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.1f} s"


def _notes(config: Experiment) -> list[str]:
    engine, out = config.engine, []
    if engine.kind != LOCAL or judge(engine).name != LOCAL:
        out.append(
            "student and teacher are counted as if both were in this process; vLLM is faster, and takes memory of its own, and "
            "Ray's actors share the work"
        )
    if engine.overlap:
        out.append("engine.overlap is not counted: it takes a copy of the student's weights, and hides the environments' time")
    return out


def _devices(parts: Mapping[str, float], room: float) -> int:
    """How many devices hold it: what every rank has for itself, beside its share of the rest. 0: none do."""
    own = parts["process"] + max(parts[name] for name in PHASES)
    shared = peak(dict(parts)) - own
    return 0 if own >= room else math.ceil(shared / (room - own)) or 1


def _resident() -> float:
    """Bytes of this process now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return float(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
