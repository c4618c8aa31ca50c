"""Figures of how runs went: success, training, episodes, depth and imitation, several runs over each other.

Each takes the runs and is None without data. A run alone is drawn with more detail than several have room for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from agentdistill.report.data import Record, Run, column, number
from agentdistill.report.style import Picture, Theme, curve, legend_below, picture, short
from agentdistill.trajectory import FloatArray

Series = tuple[str, Callable[[Run], tuple[FloatArray, FloatArray]], bool]
"""A panel's title, its x and y for a run, and whether y is a share."""
_TRAINING = {
    "kl": "reverse KL (nats/token)",
    "loss": "loss",
    "grad_norm": "gradient norm",
    "log_ratio_abs": "mean |log π − log T| (nats)",
    "entropy": "student's entropy (nats/token)",
    "advantage_abs": "mean |advantage|",
    "clip_fraction": "clipped tokens",
    "effective_batch": "effective batch (trajectories)",
    "sampler_gap": "sampler–trainer gap (nats)",
}
_SHARES = {"clip_fraction"}


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
            iterations(axes)
        percent(panels[0])
        panels[0].set_ylabel("success (% of episodes)")
        legend_below(figure, panels[-1])

    caption = (
        "Points at the ends are the evaluations before and after on held-out tasks, with 95 % intervals; the "
        "line between them is the evaluation during training, on validation tasks, with its interval as a band."
    )
    if len(runs) == 1:
        caption += " Faint dots are the success of each iteration's own rollouts."
    return picture("success", "Success over iterations", caption, draw, (8.6, 3.9))


def _success_of_run(axes: Axes, run: Run, temperature: float | None, theme: Theme, index: int, *, alone: bool) -> None:
    style, name = curve(theme, index), short(run.name)
    color = style["color"]
    iteration = column(run.iterations, "iteration")
    if alone and len(iteration) and (temperature != 0 or len(run.temperatures) == 1):  # rollouts are seldom greedy
        rollouts = column(run.iterations, "success")
        axes.plot(iteration, rollouts, ".", color=theme.muted, alpha=0.55, markersize=4, label="rollouts")
    during = run.evaluations("during", temperature)
    if during:
        x = column(during, "iteration")
        axes.fill_between(
            x, column(during, "low"), column(during, "high"), color=color, alpha=0.15 if alone else 0.08, linewidth=0
        )
        axes.plot(x, column(during, "success"), label="during" if alone else name, **style)
    end = float(iteration[-1]) if len(iteration) else 1.0
    for label, at in (("before", 0.0), ("after", end)):
        for record in run.evaluations(label, temperature)[-1:]:
            named = label if alone else name if label == "after" and not during else None
            filled = theme.surface if label == "before" else color
            at += (index - 0.5) * 0.012 * end if not alone else 0.0
            _point(axes, record, at, (color, filled), named, style["marker"])


def _point(axes: Axes, record: Record, at: float, colors: tuple[str, str], label: str | None, marker: str) -> None:
    """One rate with its interval as an error bar; `colors` are those of the line and of the point's inside."""
    color, fill = colors
    low, value, high = (column([record], key) for key in ("low", "success", "high"))
    errors = np.nan_to_num(np.clip(np.stack([value - low, high - value]), 0, None))
    axes.errorbar(
        [at], value, yerr=errors, fmt=marker, color=color, markerfacecolor=fill, markersize=6.5, markeredgewidth=1.6,
        elinewidth=1.6, capsize=3, label=label, zorder=4,
    )  # fmt: skip


def _teacher_lines(axes: Axes, runs: Sequence[Run], temperature: float | None, theme: Theme) -> None:
    """The teacher's rate as a dashed line: one where the runs agree, else one in each run's colour."""
    found = [(i, r) for i, run in enumerate(runs) for r in run.evaluations("teacher", temperature)[-1:]]
    rates = {tuple(column([record], key)[0] for key in ("success", "low", "high")) for _, record in found}
    for index, record in found[:1] if len(rates) == 1 else found:
        color = theme.series[1] if len(runs) == 1 else theme.ink if len(rates) == 1 else theme.series[index % 8]
        value, low, high = (column([record], key)[0] for key in ("success", "low", "high"))
        several = "teachers" if index == found[0][0] else None
        label = "teacher" if len(rates) == 1 else several
        axes.axhline(value, color=color, linestyle=(0, (5, 3)), linewidth=1.4, label=label)
        axes.axhspan(low, high, color=color, alpha=0.08, linewidth=0)


def training(runs: Sequence[Run]) -> Picture | None:
    """Small multiples of the loop's own numbers."""
    series: list[Series] = [
        (label, lambda run, key=key: (column(run.iterations, "iteration"), column(run.iterations, key)), key in _SHARES)  # type: ignore[misc]
        for key, label in _TRAINING.items()
    ]
    caption = "The loop's own numbers, an iteration at a time; means are over the student's tokens."
    return multiples("training", "Training", caption, runs, series)


def episodes(runs: Sequence[Run]) -> Picture | None:
    """Small multiples of what the rollouts were like: lengths, reward, tool calls and their errors."""
    series: list[Series] = [
        ("turns an episode", _ratio("turns"), False),
        ("student tokens an episode", _ratio("action_tokens", _trained), False),
        ("reward an episode", _ratio("reward"), False),
        ("tool calls an episode", _ratio("tool_calls", _played), False),
        ("tool calls that failed", _ratio("tool_errors", lambda record: number(record.get("tool_calls"))), True),
        ("did not fit the context", _ratio("overflowed", _played), True),
    ]
    for index in (5, 3):  # nothing is learnt from a flat line at 0
        values = np.concatenate([series[index][1](run)[1] for run in runs] or [np.empty(0)])
        if not np.nansum(values) > 0:
            del series[index]
    caption = "Of each iteration's rollouts. Tokens are those with loss; a call that was malformed, or raised, failed."
    return multiples("episodes", "Lengths, rewards and tool calls", caption, runs, series)


def _played(record: Record) -> float:
    """Episodes of an iteration."""
    reasons = record.get("stop_reasons")
    return sum(number(count) for count in reasons.values()) if isinstance(reasons, dict) and reasons else float("nan")


def _trained(record: Record) -> float:
    """Those of them that were trained on."""
    return _played(record) - float(np.nan_to_num(number(record.get("left_out"))))


def _ratio(key: str, over: Callable[[Record], float] = lambda _: 1.0) -> Callable[[Run], tuple[FloatArray, FloatArray]]:
    def series(run: Run) -> tuple[FloatArray, FloatArray]:
        below = np.array([over(record) for record in run.iterations], dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = column(run.iterations, key) / np.where(below > 0, below, np.nan)
        return column(run.iterations, "iteration"), values

    return series


def multiples(name: str, title: str, caption: str, runs: Sequence[Run], series: Sequence[Series]) -> Picture | None:
    """A panel for each of the series that any run has, every run over the others; None where there is none."""
    shown = [each for each in series if any(np.isfinite(each[1](run)[1]).any() for run in runs)]
    if not shown:
        return None
    columns = 2 if len(shown) == 4 else min(3, len(shown))
    rows = (len(shown) + columns - 1) // columns

    def draw(figure: Figure, theme: Theme) -> None:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (label, of, share) in zip(panels, shown, strict=False):
            lowest, highest = np.inf, -np.inf
            for index, run in enumerate(runs):
                x, y = of(run)
                if np.isfinite(y).any():
                    lowest, highest = min(lowest, float(np.nanmin(y))), max(highest, float(np.nanmax(y)))
                axes.plot(x, y, label=short(run.name), **curve(theme, index, y) | {"linewidth": 1.6})
            axes.set_title(label, fontsize=9, fontweight="normal")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
            axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            if lowest >= 0:
                axes.set_ylim(0, 1.08 * highest or 1)
            if share:
                axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if highest > 0.05 else 1))
        for axes in panels[len(shown) :]:
            axes.set_visible(False)
        for axes in panels[max(0, len(shown) - columns) : len(shown)]:
            axes.set_xlabel("iteration")
        legend_below(figure, panels[0])

    return picture(name, title, caption, draw, (8.6, 2.2 * rows + 0.35))


def depth(runs: Sequence[Run]) -> Picture | None:
    """The curriculum's depth and the replayed prefix over iterations."""
    found = [(index, run) for index, run in enumerate(runs) if _scheduled(run)]
    if not found:
        return None
    alone = len(runs) == 1

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        for index, run in found:
            iteration, limit = column(run.iterations, "iteration"), column(run.iterations, "depth")
            prefix, turns = column(run.iterations, "prefix_turns"), column(run.iterations, "turns")
            style = curve(theme, index, limit)
            if np.isfinite(limit).any():
                label = "depth (most student turns)" if alone else short(run.name)
                axes.plot(iteration, limit, label=label, drawstyle="steps-mid", **style)
            if np.nansum(prefix) > 0:
                other = {"color": theme.series[1], **_marks(prefix)} if alone else style | {"alpha": 0.55, "marker": ""}
                named = not alone and not np.isfinite(limit).any()
                label = "replayed expert turns (mean)" if alone else short(run.name) if named else "_"
                axes.plot(iteration, prefix, label=label, **other)
            if alone and np.isfinite(turns).any():
                axes.plot(iteration, turns, color=theme.muted, label="turns played (mean)", **_marks(turns))  # type: ignore[arg-type]
        axes.set_ylim(bottom=0)
        axes.set_ylabel("turns")
        iterations(axes, 10)
        legend_below(figure, axes)

    caption = "How deep the curriculum let the student go, and how many expert turns it replayed in front"
    caption += "." if alone else " (fainter lines). Runs at full depth all the time are not in it."
    return picture("depth", "Curriculum depth", caption, draw, (8.6, 3.3))


def _scheduled(run: Run) -> bool:
    limit, prefix = column(run.iterations, "depth"), column(run.iterations, "prefix_turns")
    return bool(np.isfinite(limit).any() or np.nansum(prefix) > 0)


def imitation(runs: Sequence[Run]) -> Picture | None:
    """Loss of the supervised stages, and success on validation tasks along them."""
    alone = len(runs) == 1
    lines = [
        (index, run, role)
        for index, run in enumerate(runs)
        for role in dict.fromkeys(str(record.get("role")) for record in run.metrics.get("sft", []))
    ]
    if not lines:
        return None
    evaluated = any(run.metrics.get("sft_eval") for run in runs)

    def draw(figure: Figure, theme: Theme) -> None:
        panels = figure.subplots(1, 2 if evaluated else 1, squeeze=False)[0]
        for place, (index, run, role) in enumerate(lines):
            color = theme.series[int(role != "student") if alone and len(lines) <= 2 else place % 8 if alone else index % 8]
            dashes = "-" if alone or role == "student" else (0, (4, 2))
            mine = [record for record in run.metrics.get("sft", []) if record.get("role") == role]
            steps, loss = column(mine, "step"), column(mine, "loss")
            if alone:
                panels[0].plot(steps, loss, color=color, alpha=0.25, linewidth=0.9)
            named = role == "student" or not any(line[1] is run and line[2] == "student" for line in lines)
            label = role if alone else short(run.name) if named else "_"
            panels[0].plot(steps, _smooth(loss), color=color, linestyle=dashes, label=label, **_marks(loss))
            scored = [record for record in run.metrics.get("sft_eval", []) if record.get("role") == role]
            if scored:
                x, low, high = (column(scored, key) for key in ("step", "low", "high"))
                panels[1].fill_between(x, low, high, color=color, alpha=0.15 if alone else 0.07, linewidth=0)
                panels[1].plot(x, column(scored, "success"), color=color, linestyle=dashes, marker="o", markersize=3.5)
        panels[0].set_ylim(bottom=0)
        panels[0].set_ylabel("loss (nats/token)")
        if evaluated:
            percent(panels[1])
            panels[1].set_ylabel("validation success (%)")
        for axes in panels:
            axes.set_xlabel("optimizer step")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        legend_below(figure, panels[0])

    caption = f"Loss on expert demonstrations ({'faint: every step; line: ' if alone else ''}running mean)"
    caption += ", and success on validation tasks with 95 % intervals." if evaluated else "."
    caption += "" if alone else " Dashed: a teacher's."
    return picture("sft", "Imitation before distillation", caption, draw, (8.6, 3.4))


def percent(axes: Axes) -> None:
    """The y axis as a share of everything."""
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def iterations(axes: Axes, bins: int = 8) -> None:
    """The x axis as iterations."""
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=bins))


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
