"""Figures of time: seconds by phase, and student tokens a second by phase."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure

from agentdistill.report.data import Run, column, number
from agentdistill.report.figures import Series, iterations, multiples
from agentdistill.report.style import Picture, Theme, picture, short
from agentdistill.trajectory import FloatArray

PHASES = {"generate": "generation", "environment": "environment", "score": "teacher scoring", "update": "update"}


def time_by_phase(run: Run) -> Picture | None:
    """Seconds of an iteration by phase, stacked, and each phase's share of the whole."""
    parts = _parts(run)
    if not parts:
        return None
    whole = sum(float(values.sum()) for values in parts.values())

    def draw(figure: Figure, theme: Theme) -> None:
        axes, shares = figure.subplots(1, 2, width_ratios=[2.6, 1])
        iteration = column(run.timings, "iteration")
        edges = np.append(iteration - 0.5, iteration[-1] + 0.5)
        floor = np.zeros(len(iteration))
        names = list(parts)
        for index, name in enumerate(names):
            color = _color(theme, name)
            axes.stairs(floor + parts[name], edges, baseline=floor, fill=True, color=color, linewidth=0)
            floor = floor + parts[name]
            share = float(parts[name].sum()) / whole
            shares.barh(len(names) - index, share, color=color, height=0.62)
            shares.text(share + 0.015, len(names) - index, f"{share:.0%}", va="center", fontsize=8.5)
        axes.set_ylabel("seconds an iteration")
        axes.set_ylim(bottom=0)
        iterations(axes, 10)
        shares.set_yticks(range(len(names), 0, -1), names)
        shares.tick_params(axis="y", colors=theme.ink)
        shares.set_xlim(0, 1.12)
        shares.set_xticks([])
        shares.grid(visible=False)
        shares.set_title("share of the time", fontweight="normal")

    caption = f"{len(run.timings)} timed iterations, {whole:,.0f} s in all."
    return picture("time", "Time by phase", caption, draw, (8.6, 3.1))


def time_of_runs(runs: Sequence[Run]) -> Picture | None:
    """Mean seconds of an iteration by phase, a bar a run."""
    found = [(run, parts) for run in runs if (parts := _parts(run))]
    if not found:
        return None

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        names = [name for name in (*PHASES.values(), "other") if any(name in parts for _, parts in found)]
        left = np.zeros(len(found))
        for name in names:
            values = np.array([float(parts[name].mean()) if name in parts else 0.0 for _, parts in found])
            axes.barh(range(len(found)), values, left=left, height=0.62, color=_color(theme, name), label=name)
            left += values
        axes.set_yticks(range(len(found)), [short(run.name) for run, _ in found])
        axes.invert_yaxis()
        axes.tick_params(axis="y", colors=theme.ink)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.set_xlabel("seconds an iteration (mean)")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=len(names), handlelength=1.2)

    return picture("time", "Time by phase", "Mean over the timed iterations.", draw, (8.6, 1.3 + 0.42 * len(found)))


def throughput(runs: Sequence[Run]) -> Picture | None:
    """Student tokens a second: over the whole iteration, and in each phase by itself."""
    series: list[Series] = [("all phases (tokens/s)", _speed("total"), False)]
    series += [(f"{label} (tokens/s)", _speed(phase), False) for phase, label in PHASES.items() if phase != "environment"]
    speeds = np.concatenate([_speed("total")(run)[1] for run in runs] or [np.empty(0)])
    if not np.isfinite(speeds).any():
        return None
    caption = "Student tokens with loss a second of each phase's own wall time: the slowest phase is the one to make faster."
    if len(runs) == 1:
        caption += f" Median over the whole: {np.nanmedian(speeds):,.0f}."
    return multiples("throughput", "Throughput by phase", caption, runs, series)


def _speed(phase: str) -> Callable[[Run], tuple[FloatArray, FloatArray]]:
    def series(run: Run) -> tuple[FloatArray, FloatArray]:
        tokens = {number(r.get("iteration")): number(r.get("action_tokens")) for r in run.iterations}
        x, seconds = column(run.timings, "iteration"), column(run.timings, phase)
        made = np.array([tokens.get(n, np.nan) for n in x.tolist()], dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return x, made / np.where(seconds > 0, seconds, np.nan)

    return series


def _parts(run: Run) -> dict[str, FloatArray]:
    """Seconds of each iteration by phase, and of what no phase was."""
    parts = {label: np.nan_to_num(column(run.timings, key)) for key, label in PHASES.items()}
    rest = np.clip(np.nan_to_num(column(run.timings, "total") - sum(parts.values())), 0, None)
    return {label: values for label, values in {**parts, "other": rest}.items() if values.sum() > 0}


def _color(theme: Theme, name: str) -> str:
    return theme.muted if name == "other" else theme.series[list(PHASES.values()).index(name)]
