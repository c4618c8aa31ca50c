"""Two evaluations on the same tasks, compared in pairs: what the difference is, how sure that is, and what cannot be told.

Tasks, not episodes, are the sample: several episodes of a task count as one value, their mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agentdistill.errors import UserError
from agentdistill.intervals import Rate, Z, clustered, resampled
from agentdistill.paired import holm, p_value, paired_interval, smoothed, which_test
from agentdistill.trajectory import FloatArray, Trajectory
from agentdistill.verbs import callable_as_verb

Measure = Literal["success", "reward"]
_POWER = Z + 0.841621  # the latter is the normal distribution's 80 % point
Key = tuple[str, str, int]
"""A task: environment, options and seed."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One task on both sides: means over its episodes."""

    seed: int
    task_id: str
    task_type: str
    first: float
    second: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second evaluation against the first.

    Attributes:
        measure: `success` or `reward`.
        tasks: how many both have, which are compared.
        left_out: how many only one of them has.
        first, second: means over the tasks; of success in 0 … 1.
        difference: second minus first.
        low, high: its 95 % interval (see `compare`); infinite where it is not known.
        p_value: of no difference at all (see `paired.p_value`).
        test: by which test.
        better, worse: tasks on which the second has the higher and the lower value.
        detectable: the difference that so many tasks of this kind show in four comparisons of five.
        adjusted: the p-value where it is one of several types', adjusted for their number (`paired.holm`); else itself.
        by_type: the same for the tasks of each type, where there are two types; those of one task only are not in it.
        pairs: every task's values; empty in `by_type`.
        notes: what else bears on the difference, a sentence each, such as settings that are not the same.
    """

    measure: Measure
    tasks: int
    left_out: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    test: str
    better: int
    worse: int
    detectable: float
    adjusted: float = math.nan
    by_type: dict[str, Comparison] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; what is not known is null."""
        found: dict[str, Any] = _known(asdict(self))
        return found

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Comparison:
        """What `as_dict` gave.

        Raises:
            KeyError, TypeError: when it is not that.
        """
        values = {name: stored[name] for name in cls.__dataclass_fields__}
        for name, unknown in (("low", -math.inf), ("high", math.inf), ("detectable", math.inf)):
            values[name] = unknown if values[name] is None else float(values[name])
        values["by_type"] = {str(kind): cls.from_dict(each) for kind, each in values["by_type"].items()}
        values["pairs"] = [Pair(**pair) for pair in values["pairs"]]
        return cls(**values)

    @property
    def told(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    @property
    def figures(self) -> str:
        """The difference, its interval and p-value, in points where it is of success."""
        if not math.isfinite(self.low):
            return f"{self.difference:+.3g}{self._unit}, interval unknown, p = {self.p_value:.2g}"
        low, high = self._scale * self.low, self._scale * self.high
        return f"{self._scale * self.difference:+.3g}{self._unit} [{low:+.3g}, {high:+.3g}], p = {self.p_value:.2g}"

    @property
    def verdict(self) -> str:
        """What the data can and cannot tell, in a sentence or two."""
        tells = f"{self.figures} ({self.test})"
        if self.told:
            which = "higher" if self.low > 0 else "lower"
            return (
                f"The second is {which} on these {self.tasks} tasks: {tells}. That is a statement about these two checkpoints; "
                "about two methods, only several seeds of each can tell."
            )
        start = f"The two cannot be told apart on these {self.tasks} tasks: {tells}."
        if not math.isfinite(self.detectable):
            return f"{start} All tasks differ by the same, so nothing is known of how far others might."
        seen = f"{self._scale * self.detectable:.2g}{self._unit}"
        return f"{start} A difference of {seen} would be seen in four comparisons of five."

    @property
    def lines(self) -> list[str]:
        """The verdict, that of each type, and what else bears on it."""
        out = [self.verdict]
        if self.left_out:
            out.append(f"{self.left_out} tasks that only one of them has were left out")
        for kind, each in self.by_type.items():
            said = "told apart" if each.adjusted < 0.05 else "not told apart"
            adjusted = f", {each.adjusted:.2g} for {len(self.by_type)} types together" if len(self.by_type) > 1 else ""
            out.append(f"  {kind or 'no type'}: {each.figures}{adjusted}; {said} on {each.tasks} tasks")
        return out + [f"note: {note}" for note in self.notes]

    @property
    def _scale(self) -> int:
        return 100 if self.measure == "success" else 1

    @property
    def _unit(self) -> str:
        return " points" if self.measure == "success" else ""


def compare(first: Sequence[Trajectory], second: Sequence[Trajectory], measure: Measure = "success") -> Comparison:
    """Pair two evaluations by environment, options and task seed, and tell tasks apart by type where there are types.

    The interval is a smoothed bootstrap over tasks (`paired.paired_interval`) where all values lie in 0 … 1, as those of
    success do; the two tasks that it adds differ by less the more episodes there are of a task, 1/√k for k of them, because
    chance is so much less in their means. Other rewards' is `intervals.resampled`, which adds nothing.

    Raises:
        UserError: when they have fewer than two tasks in common, or an episode has no reward to compare.
    """
    ours, theirs = by_task(first), by_task(second)
    common = sorted(ours.keys() & theirs.keys())
    if len(common) < 2:
        raise UserError(
            f"the two evaluations have {len(common)} tasks in common ({len(ours)} and {len(theirs)} in all), and a paired "
            "comparison needs 2; evaluate both on one panel, or on one environment, with the same options, split and --tasks"
        )
    sides = [[_values(each[task], measure) for task in common] for each in (ours, theirs)]
    kinds = [next((t.task_type for t in ours[task] + theirs[task] if t.task_type), "") for task in common]
    pairs = [
        Pair(task[2], ours[task][0].task_id, kind, float(np.mean(a)), float(np.mean(b)))
        for task, kind, a, b in zip(common, kinds, *sides, strict=True)
    ]
    scale = _scale_of(*sides)
    found = _compared(pairs, measure, scale, len(ours.keys() ^ theirs.keys()))
    return replace(found, by_type=_by_type(pairs, measure, scale), pairs=pairs)


def _by_type(pairs: Sequence[Pair], measure: Measure, scale: float | None) -> dict[str, Comparison]:
    """Each type's own comparison, with p-values that know of the others."""
    kinds = sorted({pair.task_type for pair in pairs})
    if len(kinds) < 2:
        return {}
    members = {kind: [pair for pair in pairs if pair.task_type == kind] for kind in kinds}
    found = {kind: _compared(each, measure, scale, 0) for kind, each in members.items() if len(each) > 1}
    adjusted = holm([each.p_value for each in found.values()])
    return {kind: replace(each, adjusted=p) for (kind, each), p in zip(found.items(), adjusted, strict=True)}


def _compared(pairs: Sequence[Pair], measure: Measure, scale: float | None, left_out: int) -> Comparison:
    a, b = (np.array([getattr(pair, side) for pair in pairs], dtype=np.float64) for side in ("first", "second"))
    d: FloatArray = b - a
    if scale is None:
        low, high = resampled(d.tolist(), [1] * len(d))
        spread = float(d.std(ddof=1)) / math.sqrt(len(d)) if math.isfinite(low) else math.inf
    else:
        low, high = paired_interval(d, scale)
        spread = float(smoothed(d, scale).std(ddof=1)) / math.sqrt(len(d) + 2)
    p = p_value(d)
    return Comparison(
        measure, len(d), left_out, float(a.mean()), float(b.mean()), float(d.mean()), low, high, p, which_test(d),
        int((d > 0).sum()), int((d < 0).sum()), _POWER * spread, p,
    )  # fmt: skip


def _scale_of(*sides: Sequence[Sequence[float]]) -> float | None:
    """`1/√k` for k episodes a task, their harmonic mean over both sides; None where a value lies outside 0 … 1."""
    if any(not 0 <= value <= 1 for side in sides for task in side for value in task):
        return None
    return math.sqrt(float(np.mean([1 / len(task) for side in sides for task in side])))


def rates(trajectories: Sequence[Trajectory]) -> Rate:
    """The success rate of one side, with its own interval."""
    return clustered([[t.success for t in task] for task in by_task(trajectories).values()])


def by_task(trajectories: Sequence[Trajectory]) -> dict[Key, list[Trajectory]]:
    """The episodes of each task."""
    out: dict[Key, list[Trajectory]] = {}
    for each in trajectories:
        out.setdefault((each.env_id, repr(sorted(each.env_options.items())), each.seed), []).append(each)
    return out


def load_comparison(path: str | Path) -> Comparison:
    """A comparison that `--out` wrote.

    Raises:
        UserError: when there is no such file, or it holds something else.
    """
    try:
        return Comparison.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"there is no comparison '{path}' ({error.strerror}); `compare A B --out FILE` writes one") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{path}' is no comparison, or a damaged one; `compare A B --out FILE` writes one") from error


def _values(episodes: Sequence[Trajectory], measure: Measure) -> list[float]:
    values = [float(t.success if measure == "success" else t.reward) for t in episodes]
    for t, value in zip(episodes, values, strict=True):
        if not math.isfinite(value):
            raise UserError(f"episode '{t.id}' has no reward that could be compared ({value}); compare success instead")
    return values


def _known(value: Any) -> Any:
    """Numbers that are not finite become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _known(each) for key, each in value.items()}
    return [_known(each) for each in value] if isinstance(value, list) else value


callable_as_verb(__name__)
