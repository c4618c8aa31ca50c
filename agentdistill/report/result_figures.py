"""Figures of results: success by task type, and where the steps of a distilled student come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from agentdistill.intervals import Rate
from agentdistill.provenance import CLASSES, Origins
from agentdistill.report.data import Run
from agentdistill.report.figures import iterations, percent
from agentdistill.report.style import Picture, Theme, curve, legend_below, picture, short

Types = Sequence[tuple[str, Mapping[str, Rate | None]]]
_STAGES = {"before": 0, "after": 1, "teacher": 2}
_ORDER = (1, 0, 3, 2)  # teacher, shared, boosted, student: the two that compete are the farthest apart
_ITERATION = len("iter-")


def by_type(runs: Sequence[Run], types: Sequence[Types]) -> Picture | None:
    """Success by task type with intervals: the stages of one run, or what several had after training."""
    kinds = list(dict.fromkeys(kind for each in types for kind, _ in each))
    if not kinds:
        return None
    alone = len(runs) == 1
    if alone:
        lines = [(stage, place, {kind: rates.get(stage) for kind, rates in types[0]}) for stage, place in _STAGES.items()]
    else:
        lines = [
            (short(run.name), i, {kind: rates.get("after") for kind, rates in each})
            for i, (run, each) in enumerate(zip(runs, types, strict=True))
        ]
    lines = [line for line in lines if any(line[2].values())]

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        for place, (label, index, rates) in enumerate(lines):
            at = [i + (place - (len(lines) - 1) / 2) * 0.6 / len(lines) for i, kind in enumerate(kinds) if rates.get(kind)]
            found = [rate for kind in kinds if (rate := rates.get(kind))]
            value = np.array([rate.success for rate in found])
            errors = np.clip([value - [rate.low for rate in found], [rate.high for rate in found] - value], 0, None)
            style = curve(theme, index) | {"linestyle": "none", "markersize": 5.5}
            axes.errorbar(value, at, xerr=errors, label=label, elinewidth=1.6, capsize=2.5, **style)
        axes.set_yticks(range(len(kinds)), [short(kind) or "no type" for kind in kinds])
        axes.set_ylim(len(kinds) - 0.4, -0.6)
        axes.tick_params(axis="y", colors=theme.ink)
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("success (% of episodes)")
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        legend_below(figure, axes)

    caption = "Held-out tasks, with 95 % intervals" + ("." if alone else ", after training.")
    height = 1.2 + max(0.34, 0.14 * len(lines)) * len(kinds)
    return picture("success-by-type", "Success by task type", caption, draw, (8.6, height))


def origin(run: Run, found: Origins) -> Picture | None:
    """Shares of steps by where they come from: over iterations, and by turn in the last of them."""
    names = [name for name in found.counts if name.startswith("iter-") and name[_ITERATION:].isdecimal()]
    if not names:
        return None
    last = names[-int(np.clip(len(names) // 10, 1, 10)) :]
    over, turns = np.array([found.counts[name].sum(0) for name in names]), found.by_turn(last)
    kept = np.flatnonzero(turns.sum(1))
    turns = turns[kept]

    def draw(figure: Figure, theme: Theme) -> None:
        axes, by_turn = figure.subplots(1, 2, sharey=True, width_ratios=[1.6, 1])
        x = np.array([int(name[_ITERATION:]) for name in names], dtype=np.float64)
        shares, late = _shares(over), _shares(turns)
        edges, floor, below = np.append(x - 0.5, x[-1] + 0.5), np.zeros(len(x)), np.zeros(len(kept))
        for index, place in enumerate(_ORDER):
            color = theme.series[index]
            axes.stairs(
                floor + shares[:, place], edges, baseline=floor, fill=True, color=color, linewidth=0, label=CLASSES[place]
            )
            by_turn.bar(kept + 1, late[:, place], bottom=below, width=0.8, color=color)
            floor, below = floor + shares[:, place], below + late[:, place]
        percent(axes)
        axes.set_ylim(0, 1)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylabel("steps (%)")
        iterations(axes, 8)
        iterations(by_turn, 8)
        by_turn.set_xlabel(f"turn, in the last {len(last)} iterations" if len(last) > 1 else "turn, in the last iteration")
        axes.grid(visible=False)
        by_turn.grid(visible=False)
        legend_below(figure, axes)

    steps = f"{int(over.sum()):,} steps, scored by '{found.teacher}' and by '{found.student}', the student before."
    return picture("provenance", "Where the steps come from", f"{_MEANING} {steps}", draw, (8.6, 3.5))


def origin_of_runs(found: Sequence[tuple[int, Run, Origins]]) -> Picture | None:
    """The teacher's and the old student's shares over iterations, a line a run."""
    kept = [(i, run, each) for i, run, each in found if any(name.startswith("iter-") for name in each.counts)]
    if not kept:
        return None

    def draw(figure: Figure, theme: Theme) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, place in zip(panels, (1, 2), strict=True):
            for index, run, each in kept:
                names = [name for name in each.counts if name.startswith("iter-") and name[_ITERATION:].isdecimal()]
                x = np.array([int(name[_ITERATION:]) for name in names], dtype=np.float64)
                y = _shares(np.array([each.counts[name].sum(0) for name in names]))[:, place]
                axes.plot(x, y, label=short(run.name), **curve(theme, index, y))
            axes.set_title(f"from the {'teacher' if place == 1 else 'student before'}", fontweight="normal")
            iterations(axes)
        percent(panels[0])
        panels[0].set_ylabel("steps (%)")
        legend_below(figure, panels[0])

    return picture("provenance", "Where the steps come from", _MEANING, draw, (8.6, 3.5))


_MEANING = (
    "Teacher: the teacher would say the step and the student before would not; student: the other way round; shared: all three "
    "would about as readily; boosted: those two agree, and distillation moved the student away from both."
)


def _shares(counts: np.ndarray) -> np.ndarray:
    return np.asarray(counts / np.maximum(counts.sum(1, keepdims=True), 1))
