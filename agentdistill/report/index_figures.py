"""Figures over turns and steps: how KL and the step weights depend on where in an episode a token stands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from agentdistill.report.data import Run, column, matrix, number
from agentdistill.report.figures import iterations, percent
from agentdistill.report.style import Picture, Theme, curve, legend_below, picture, short
from agentdistill.trajectory import FloatArray

_MAPS = 6  # heat maps that a figure has room for
_WEIGHTS = ("below 0.01", "0.01 to 0.1", "0.1 to 0.5", "0.5 to 1", "above 1")  # the bins of `weight_shares`


def kl_heat_map(runs: Sequence[Run]) -> Picture | None:
    """Mean reverse KL per token: iterations across, turns upwards; a map a run, all on one scale."""
    found = [(run, values) for run in runs if np.isfinite(values := _kl(run)).any()][:_MAPS]
    if not found:
        return None
    top = float(np.nanquantile(np.concatenate([values.ravel() for _, values in found]), 0.98))
    turns = max(values.shape[1] for _, values in found)

    def draw(figure: Figure, theme: Theme) -> None:
        panels = figure.subplots(len(found), 1, squeeze=False, sharex=len(found) > 1)[:, 0]
        for axes, (run, values) in zip(panels, found, strict=True):
            iteration = column(run.iterations, "iteration")
            extent = (iteration[0] - 0.5, iteration[-1] + 0.5, 0.5, values.shape[1] + 0.5)
            image = axes.imshow(
                np.ma.masked_invalid(values.T), origin="lower", aspect="auto", interpolation="nearest", extent=extent,
                cmap=theme.colormap, vmin=0, vmax=top if top > 0 else 1,
            )  # fmt: skip
            axes.set_ylim(0.5, turns + 0.5)
            axes.grid(visible=False)
            axes.set_ylabel("turn")
            axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
            if len(found) > 1:
                axes.set_title(short(run.name, 80))
        iterations(panels[-1], 10)
        bar = figure.colorbar(image, ax=list(panels), pad=0.015, fraction=0.04, extend="max")
        bar.set_label("reverse KL (nats/token)")
        bar.outline.set_visible(False)

    caption = (
        "Mean reverse KL from student to teacher per student token, by turn and iteration; the scale ends at the 98th "
        "percentile, and turns that nobody reached are empty."
    )
    more = len([run for run in runs if np.isfinite(_kl(run)).any()]) - len(found)
    caption += f" {more} more runs are below only." if more else ""
    return picture(
        "kl-by-turn", "KL by turn over time", caption, draw, (8.6, 3.6 if len(found) == 1 else 1.9 * len(found) + 0.6)
    )


def kl_curves(runs: Sequence[Run]) -> Picture | None:
    """KL by turn and by step, the first iterations against the last."""
    keys = {"turn": "kl_by_turn", "step": "kl_by_step"}
    keys = {name: key for name, key in keys.items() if any(np.isfinite(matrix(run.iterations, key)).any() for run in runs)}
    if not any(np.isfinite(_kl(run)).any() for run in runs):
        return None

    def draw(figure: Figure, theme: Theme) -> None:
        panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
        lowest = 0.0
        for axes, (name, key) in zip(panels, keys.items(), strict=True):
            for index, run in enumerate(runs):
                values = _kl(run) if key == "kl_by_turn" else matrix(run.iterations, key)
                if not np.isfinite(values).any():
                    continue
                lowest = min(lowest, float(np.nanmin(values)))
                tokens = (
                    matrix(run.iterations, "tokens_by_turn")[:, : values.shape[1]] if key == "kl_by_turn" else np.empty((0, 0))
                )
                _first_and_last(axes, values, tokens, theme, None if len(runs) == 1 else (index, run.name))
            axes.set_xlabel(f"{name} of the episode")
        panels[0].set_ylabel("reverse KL (nats/token)")
        if lowest >= 0:
            panels[0].set_ylim(bottom=0)
        legend_below(figure, panels[0])

    caption = "The same, averaged over the first and the last iterations"
    caption += "; bands are one standard deviation between them." if len(runs) == 1 else _BOTH
    return picture("kl-curves", "KL by turn and by step, first and last iterations", caption, draw, (8.6, 3.5))


def step_weights(runs: Sequence[Run]) -> Picture | None:
    """Mean weight by step, first against last, and the share of steps that hardly count."""
    found = [(i, run) for i, run in enumerate(runs) if np.isfinite(matrix(run.iterations, "weight_by_step")).any()]
    if not found:
        return None
    shown = any(np.isfinite(column(run.iterations, "weight_small_share")).any() for _, run in found)

    def draw(figure: Figure, theme: Theme) -> None:
        panels = figure.subplots(1, 2 if shown else 1, squeeze=False)[0]
        for index, run in found:
            weights = matrix(run.iterations, "weight_by_step")
            _first_and_last(panels[0], weights, np.empty((0, 0)), theme, None if len(runs) == 1 else (index, run.name))
        panels[0].set_xlabel("step of the episode")
        panels[0].set_ylabel("mean weight")
        panels[0].set_ylim(bottom=0)
        legend_below(figure, panels[0])
        if shown and len(runs) == 1 and (shares := _shares(found[0][1])):
            _stack(panels[1], column(runs[0].iterations, "iteration"), shares, theme)
            panels[1].set_ylabel("steps by their weight (%)")
        elif shown:
            for index, run in found:
                small = column(run.iterations, "weight_small_share")
                panels[1].plot(column(run.iterations, "iteration"), small, **curve(theme, index, small))
            panels[1].set_ylabel("steps with weight below 0.01 (%)")
        if shown:
            percent(panels[1])
            iterations(panels[1], 6)

    caption = "How much each step counts in the loss. Where most weights are near zero, most of the episode is not learnt."
    caption += "" if len(runs) == 1 else " Left: averaged over the first and the last iterations" + _BOTH
    return picture("weights", "Step weights", caption, draw, (8.6, 3.5))


_BOTH = ": a run's line is of its last ones, the same in dots and fainter of its first."


def endings(run: Run) -> Picture | None:
    """How episodes ended, as shares of each iteration's."""
    kept = [record.get("stop_reasons") for record in run.iterations]
    reasons = [each if isinstance(each, dict) else {} for each in kept]
    names = sorted({name for each in reasons for name in each}, key=lambda name: -sum(number(r.get(name, 0)) for r in reasons))
    if not names:
        return None
    counts = np.array([[np.nan_to_num(number(each.get(name, 0))) for name in names] for each in reasons])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        parts = {name.replace("_", " "): shares[:, i] for i, name in enumerate(names)}
        _stack(axes, column(run.iterations, "iteration"), parts, theme, legend=False)
        percent(axes)
        axes.set_ylabel("episodes (%)")
        iterations(axes, 10)
        legend_below(figure, axes)

    caption = (
        "Why episodes ended: the environment's end, its step limit, the experiment's (max turns) or the curriculum's (depth)."
    )
    return picture("endings", "How episodes ended", caption, draw, (8.6, 3.1))


def _shares(run: Run) -> dict[str, FloatArray]:
    """Shares of steps by weight; empty where the run has none."""
    kept = matrix(run.iterations, "weight_shares")
    return dict(zip(_WEIGHTS, kept.T, strict=True)) if kept.shape[1] == len(_WEIGHTS) else {}


def _stack(axes: Axes, x: FloatArray, parts: dict[str, FloatArray], theme: Theme, *, legend: bool = True) -> None:
    """Shares as areas on each other, an iteration a column."""
    edges, floor = np.append(x - 0.5, x[-1] + 0.5), np.zeros(len(x))
    for index, (name, values) in enumerate(parts.items()):
        top = floor + np.nan_to_num(values)
        axes.stairs(top, edges, baseline=floor, fill=True, color=theme.series[index % 8], linewidth=0, label=name)
        floor = top
    axes.set_xlim(edges[0], edges[-1])
    axes.grid(visible=False)
    if legend:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, handlelength=1.2, fontsize=8)


def _kl(run: Run) -> FloatArray:
    """`[iterations, turns]` mean KL, NaN where a turn has no tokens, as far as any turn has."""
    values, tokens = matrix(run.iterations, "kl_by_turn"), matrix(run.iterations, "tokens_by_turn")
    values = np.where(tokens > 0, values, np.nan) if tokens.shape == values.shape else values
    reached = np.flatnonzero(np.isfinite(values).any(0))
    return values[:, : reached[-1] + 1] if len(reached) else values


def _first_and_last(
    axes: Axes, values: FloatArray, tokens: FloatArray, theme: Theme, run: tuple[int, str] | None = None
) -> None:
    """Means over the first and the last tenth of the iterations (at most ten), with a band of one deviation.

    Args:
        run: where there are several, which it is, and its name.
    """
    m = int(np.clip(len(values) // 10, 1, 10))
    parts = [("first", slice(0, m))]
    if len(values) > m:
        parts.append(("last", slice(len(values) - m, None)))
    for place, (name, rows) in enumerate(parts):
        part = values[rows]
        weight = tokens[rows] if tokens.shape == values.shape else np.ones_like(part)
        weight = np.where(np.isfinite(part), weight, 0.0)
        with np.errstate(invalid="ignore"):
            weight = weight / weight.sum(0)
        mean = (np.nan_to_num(part) * weight).sum(0)
        x, label = np.arange(len(mean)) + 1, f"{name} iteration" if m == 1 else f"{name} {m} iterations"
        if run is not None:
            last = place == len(parts) - 1
            fainter = {} if last else {"linestyle": (0, (1, 2)), "alpha": 0.6, "marker": "", "linewidth": 1.3}
            axes.plot(x, mean, label=short(run[1]) if last else "_", **curve(theme, run[0], mean) | fainter)
            continue
        axes.plot(x, mean, label=label, **curve(theme, place, mean))
        if m >= 3:
            spread = np.sqrt((np.nan_to_num(part - mean) ** 2 * weight).sum(0))
            axes.fill_between(x, mean - spread, mean + spread, color=theme.series[place], alpha=0.14, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9))
