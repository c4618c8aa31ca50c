"""Figures of how a run went: success, training, curriculum depth, time and imitation. Each is None without its data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from agentdistill.report.data import Record, Run, column
from agentdistill.report.style import Picture, Theme, legend_below, picture
from agentdistill.trajectory import FloatArray

_PHASES = {"generate": "generation", "environment": "environment", "score": "teacher scoring", "update": "update"}
_PANELS = {
    "kl": "mean reverse KL per student token (nats)",
    "loss": "loss",
    "grad_norm": "gradient norm",
    "turns": "turns an episode",
    "action_tokens": "student tokens an iteration",
    "sampler_gap": "sampler and trainer log-prob gap (nats)",
}


def success(runs: Sequence[Run]) -> Picture | None:
    """Success over iterations with 95 % intervals, the runs over each other, a panel for each temperature."""
    shown: list[float | None] = [*sorted({t for run in runs for t in run.temperatures})[:3]] or [None]
    if not any(run.metrics.get("eval") or np.isfinite(column(run.iterations, "success")).any() for run in runs):
        return None

    def draw(figure: Figure, theme: Theme) -> None:
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, temperature in zip(panels, shown, strict=True):
            for index, run in enumerate(runs):
                _success_of_run(axes, run, temperature, theme, index, alone=len(runs) == 1)
            _teacher_lines(axes, runs, temperature, theme)
            if temperature is not None:
                axes.set_title("greedy decoding" if temperature == 0 else f"temperature {temperature:g}")
            axes.set_xlabel("iteration")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        panels[0].set_ylim(-0.02, 1.02)
        panels[0].yaxis.set_major_formatter(PercentFormatter(1.0))
        panels[0].set_ylabel("success")
        legend_below(figure, panels[-1])

    caption = (
        "Points at the ends are the evaluations before and after on held-out tasks, with 95 % intervals; the "
        "line between them is the evaluation during training, on validation tasks, with its interval as a band."
    )
    if len(runs) == 1:
        caption += " Faint dots are the success of each iteration's own rollouts."
    return picture("success", "Success over iterations", caption, draw, (8.6, 3.7))


def _success_of_run(axes: Axes, run: Run, temperature: float | None, theme: Theme, index: int, *, alone: bool) -> None:
    color = theme.series[index % len(theme.series)]
    iteration = column(run.iterations, "iteration")
    if alone and len(iteration) and (temperature != 0 or len(run.temperatures) == 1):  # rollouts are seldom greedy
        rollouts = column(run.iterations, "success")
        axes.plot(iteration, rollouts, ".", color=theme.muted, alpha=0.55, markersize=4, label="rollouts")
    during = run.evaluations("during", temperature)
    if during:
        x = column(during, "iteration")
        axes.fill_between(
            x, column(during, "low"), column(during, "high"), color=color, alpha=0.15 if alone else 0.07, linewidth=0
        )
        axes.plot(x, column(during, "success"), "o-", color=color, markersize=3.5, label="during" if alone else run.name)
    end = float(iteration[-1]) if len(iteration) else 1.0
    for label, at in (("before", 0.0), ("after", end)):
        for record in run.evaluations(label, temperature)[-1:]:
            named = label if alone else run.name if label == "after" and not during else None
            filled = theme.surface if label == "before" else color
            at += (index - 0.5) * 0.008 * end if not alone else 0.0
            _point(axes, record, at, (color, filled), named)


def _point(axes: Axes, record: Record, at: float, colors: tuple[str, str], label: str | None) -> None:
    """One rate with its interval as an error bar; `colors` are those of the line and of the point's inside."""
    color, fill = colors
    low, value, high = (column([record], key) for key in ("low", "success", "high"))
    errors = np.nan_to_num(np.clip(np.stack([value - low, high - value]), 0, None))
    axes.errorbar(
        [at], value, yerr=errors, fmt="o", color=color, markerfacecolor=fill, markersize=6.5, markeredgewidth=1.6,
        elinewidth=1.6, capsize=3, label=label, zorder=4,
    )  # fmt: skip


def _teacher_lines(axes: Axes, runs: Sequence[Run], temperature: float | None, theme: Theme) -> None:
    """The teacher's rate as a dashed line: one where the runs agree, else one in each run's colour."""
    found = [(i, r) for i, run in enumerate(runs) for r in run.evaluations("teacher", temperature)[-1:]]
    rates = {tuple(column([record], key)[0] for key in ("success", "low", "high")) for _, record in found}
    for index, record in found[:1] if len(rates) == 1 else found:
        color = theme.series[1] if len(runs) == 1 else theme.ink if len(rates) == 1 else theme.series[index % 8]
        value, low, high = (column([record], key)[0] for key in ("success", "low", "high"))
        axes.axhline(value, color=color, linestyle=(0, (5, 3)), linewidth=1.4, label="teacher" if len(rates) == 1 else None)
        axes.axhspan(low, high, color=color, alpha=0.08, linewidth=0)


def training(run: Run) -> Picture | None:
    """Small multiples of the loop's own numbers."""
    shown = {key: label for key, label in _PANELS.items() if np.isfinite(column(run.iterations, key)).any()}
    if not shown:
        return None
    rows = (len(shown) + 2) // 3

    def draw(figure: Figure, theme: Theme) -> None:
        panels = figure.subplots(rows, 3, squeeze=False).ravel()
        iteration = column(run.iterations, "iteration")
        for axes, (key, label) in zip(panels, shown.items(), strict=False):
            values = column(run.iterations, key)
            axes.plot(iteration, values, color=theme.series[0], **_marks(values))
            axes.set_title(label, fontsize=8.8, fontweight="normal")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
            axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
            if np.nanmin(values) >= 0:
                axes.set_ylim(0, 1.08 * np.nanmax(values) or 1)
        for axes in panels[len(shown) :]:
            axes.set_visible(False)
        for axes in panels[max(0, len(shown) - 3) : len(shown)]:
            axes.set_xlabel("iteration")

    return picture("training", "Training", "The loop's own numbers, an iteration at a time.", draw, (8.6, 2.2 * rows))


def depth(run: Run) -> Picture | None:
    """The curriculum's depth and the replayed prefix over iterations."""
    limit, prefix = column(run.iterations, "depth"), column(run.iterations, "prefix_turns")
    if not np.isfinite(limit).any() and not np.nansum(prefix) > 0:
        return None

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        iteration = column(run.iterations, "iteration")
        for values, label, color in (
            (limit, "depth (most student turns)", theme.series[0]),
            (prefix if np.nansum(prefix) > 0 else prefix * np.nan, "replayed expert turns (mean)", theme.series[1]),
            (column(run.iterations, "turns"), "turns played (mean)", theme.muted),
        ):
            if np.isfinite(values).any():
                style = "steps-mid" if values is limit else "default"
                axes.plot(iteration, values, color=color, label=label, drawstyle=style, **_marks(values))  # type: ignore[arg-type]
        axes.set_ylim(bottom=0)
        axes.set_xlabel("iteration")
        axes.set_ylabel("turns")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
        legend_below(figure, axes)

    caption = "How deep the curriculum let the student go, and how many expert turns it replayed in front."
    return picture("depth", "Curriculum depth", caption, draw, (8.6, 3.2))


def time_by_phase(run: Run) -> Picture | None:
    """Seconds of an iteration by phase, stacked, and each phase's share of the whole."""
    parts = {label: np.nan_to_num(column(run.timings, key)) for key, label in _PHASES.items()}
    total = column(run.timings, "total")
    rest = np.clip(np.nan_to_num(total - sum(parts.values())), 0, None)
    parts = {label: values for label, values in {**parts, "other": rest}.items() if values.sum() > 0}
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
            color = theme.muted if name == "other" else theme.series[index]
            axes.stairs(floor + parts[name], edges, baseline=floor, fill=True, color=color, linewidth=0)
            floor = floor + parts[name]
            share = float(parts[name].sum()) / whole
            shares.barh(len(names) - index, share, color=color, height=0.62)
            shares.text(share + 0.015, len(names) - index, f"{share:.0%}", va="center", fontsize=8.5)
        axes.set_xlabel("iteration")
        axes.set_ylabel("seconds")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
        shares.set_yticks(range(len(names), 0, -1), names)
        shares.tick_params(axis="y", colors=theme.ink)
        shares.set_xlim(0, 1)
        shares.set_xticks([])
        shares.grid(visible=False)
        shares.set_title("share of the time", fontweight="normal")

    speed = column(run.timings, "tokens_per_second")
    caption = f"{len(run.timings)} timed iterations, {whole:,.0f} s in all."
    if np.isfinite(speed).any():
        caption += f" Median over all phases: {np.nanmedian(speed):,.0f} student tokens a second."
    return picture("time", "Time by phase", caption, draw, (8.6, 3.1))


def imitation(run: Run) -> Picture | None:
    """Loss of the supervised stages, and success on validation tasks along them."""
    records, evaluations = run.metrics.get("sft", []), run.metrics.get("sft_eval", [])
    roles = [role for role in ("teacher", "student") if any(record.get("role") == role for record in records)]
    if not roles:
        return None

    def draw(figure: Figure, theme: Theme) -> None:
        panels = figure.subplots(1, 2 if evaluations else 1, squeeze=False)[0]
        for role in roles:
            color = theme.series[1] if role == "teacher" else theme.series[0]
            mine = [record for record in records if record.get("role") == role]
            steps, loss = column(mine, "step"), column(mine, "loss")
            panels[0].plot(steps, loss, color=color, alpha=0.25, linewidth=0.9)
            panels[0].plot(steps, _smooth(loss), color=color, label=role, **_marks(loss))
            scored = [record for record in evaluations if record.get("role") == role]
            if scored:
                x, low, high = (column(scored, key) for key in ("step", "low", "high"))
                panels[1].fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
                panels[1].plot(x, column(scored, "success"), "o-", color=color, markersize=3.5, label=role)
        panels[0].set_ylim(bottom=0)
        panels[0].set_ylabel("loss (nats per token)")
        if evaluations:
            panels[1].set_ylim(-0.02, 1.02)
            panels[1].yaxis.set_major_formatter(PercentFormatter(1.0))
            panels[1].set_ylabel("success on validation tasks")
        for axes in panels:
            axes.set_xlabel("step")
        legend_below(figure, panels[0])

    caption = "Loss on expert demonstrations (faint: every step; line: running mean)"
    caption += ", and success on validation tasks with 95 % intervals." if evaluations else "."
    return picture("sft", "Imitation before distillation", caption, draw, (8.6, 3.3))


def _marks(values: FloatArray) -> dict[str, str | float]:
    """Markers where a line is too short to be seen as one."""
    return {"marker": "o", "markersize": 3.5} if np.isfinite(values).sum() <= 20 else {}


def _smooth(values: FloatArray) -> FloatArray:
    """Running mean over about a fortieth of the curve, shorter at its ends."""
    half = max(1, len(values) // 80)
    sums = np.cumsum(np.concatenate([[0.0], np.nan_to_num(values)]))
    counts = np.cumsum(np.concatenate([[0.0], np.isfinite(values)]))
    low = np.clip(np.arange(len(values)) - half, 0, None)
    high = np.clip(np.arange(len(values)) + half + 1, None, len(values))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((sums[high] - sums[low]) / (counts[high] - counts[low]), dtype=np.float64)
