"""An estimate, and what a reader wants of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from agentdistill.cost.memory import PHASES, Role
from agentdistill.cost.work import Lengths

GIB = 1 << 30
_LOWER = {
    "imitating": "lower train.token_budget",
    "playing": "lower train.tasks, train.rollouts or env.max_context",
    "scoring": "lower train.token_budget",
    "updating": "lower train.token_budget, or set train.activation_checkpointing",
}
ROOM = 0.92  # of a device's memory that allocators can use


@dataclass(frozen=True, slots=True)
class Plan:
    """An estimate.

    Attributes:
        device: what it is for.
        parameters: of each model, by its reference; those that were guessed from a name in `guessed`.
        lengths: of a mean episode.
        roles: the processes, and the memory of each.
        capacity: bytes of one device.
        together: whether all processes are on one device.
        ranks: that train, and the fewest with which every process has its room, 0 where no number has it.
        fewest: see `ranks`.
        floor: the process that needs most with as many ranks as there can be.
        devices: how many of them the processes take; 0 where they have no room.
        instead: what would hold it where this does not, in words.
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
    roles: list[Role]
    capacity: float
    together: bool
    ranks: int
    fewest: int
    floor: Role
    devices: int
    instead: str
    seconds: dict[str, float]
    evaluating: float
    iterations: int
    tokens_per_second: float
    notes: list[str]

    @property
    def largest(self) -> Role:
        """Of the processes on devices the one that needs most."""
        return max((each for each in self.roles if each.device), key=lambda each: each.peak)

    @property
    def bytes(self) -> dict[str, float]:
        """Of the largest process, by what they hold; those of `PHASES` are not there at the same time."""
        return self.largest.bytes

    @property
    def peak(self) -> float:
        """Bytes at the worst moment: of the largest process, or of all where they share a device."""
        return sum(each.count * each.peak for each in self.roles) if self.together else self.largest.peak

    @property
    def hours(self) -> float:
        """Of the whole run, without its supervised stages."""
        return (self.iterations * sum(self.seconds.values()) + self.evaluating) / 3600

    @property
    def binds(self) -> str:
        """What takes the most memory, and the most time, in words."""
        slow = max(self.seconds, key=lambda name: self.seconds[name])
        large, where = max(self.bytes, key=lambda name: self.bytes[name]), self.largest
        share = self.seconds[slow] / max(1e-12, sum(self.seconds.values()))
        whose = "" if len(self.roles) == 1 else f" of {where.said}"
        of = f"{where.bytes[large] / where.peak:.0%} of the peak{whose}"
        return f"time: {slow} ({share:.0%} of an iteration); memory: {large} ({of})"

    @property
    def held(self) -> str:
        """How many devices hold it, or what to do, in words."""
        if self.devices:
            if len(self.roles) == 1:
                return "it fits one"
            if self.together:
                return "all of it fits one"
            ranks = f"{self.ranks} trainer ranks" if self.ranks > 1 else f"{sum(each.count for each in self.roles)} processes"
            return f"it takes {self.devices} of them, for {ranks}"
        if self.fewest:
            setting = " (engine.ray.trainers)" if self.roles[0].name == "driver" else ""
            return f"it does not fit; with {self.fewest} trainer rank{'s' * (self.fewest > 1)}{setting} it does"
        where = self.floor
        weights = sum(n for name, n in where.bytes.items() if name not in (*PHASES, "process"))
        if weights > ROOM * self.capacity:
            said = f"the weights of {where.name} alone are {weights / GIB:.1f} GiB"
        else:
            said = f"{where.name} would need all of '{where.phase}'; {_LOWER[where.phase]}"
        return f"no number of them holds it, for {said}{self.instead}"

    @property
    def lines(self) -> list[str]:
        """What a reader wants of it."""
        sizes = ", ".join(f"{ref} {_count(n)}" + (" (guessed)" if ref in self.guessed else "")
                          for ref, n in self.parameters.items())  # fmt: skip
        own = self.lengths
        times = ", ".join(f"{name} {n:.2f}" for name, n in self.seconds.items())
        return [
            f"on {self.device}",
            f"models: {sizes}",
            f"an episode: {own.turns:.1f} turns, {own.written:.0f} tokens written, {own.read:.0f} read ({own.source})",
            *(f"memory{self._whose(each)}, GiB: {_parts(each)}: peak {each.peak / GIB:.2f}" for each in self.roles),
            f"peak {self.peak / GIB:.2f} GiB of {self.capacity / GIB:.0f}: {self.held}",
            f"an iteration, s: {times}; {self.tokens_per_second:,.0f} tokens/s of the student's",
            f"{self.iterations} iterations {_time(self.iterations * sum(self.seconds.values()))}, evaluations "
            f"{_time(self.evaluating)}: {_time(3600 * self.hours)}, supervised stages not counted",
            f"what binds: {self.binds}",
            *(f"note: {note}" for note in self.notes),
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        out = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        del out["floor"], out["instead"]  # which are for `held`
        out["roles"] = [dataclasses.asdict(each) | {"peak": each.peak} for each in self.roles]
        out["lengths"] = dataclasses.asdict(self.lengths)
        derived = {name: getattr(self, name) for name in ("bytes", "peak", "hours", "binds", "held")}
        return {**out, **derived}

    def _whose(self, role: Role) -> str:
        return "" if len(self.roles) == 1 else f" of {role.said}" + ("" if role.device else " (on a host)")


def _parts(role: Role) -> str:
    return ", ".join(f"{name} {n / GIB:.2f}" for name, n in role.bytes.items() if n)


def _count(n: int) -> str:
    return f"{n / 1e6:,.1f} M" if n >= 1e6 else f"{n / 1e3:,.0f} K"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.1f} s"
