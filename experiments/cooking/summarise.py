"""The table and the figure of the cooking experiments, from their run folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from agentdistill.intervals import across_seeds
from agentdistill.report.data import load_run
from agentdistill.store import Store

METHODS = {
    "opd": "OPD (exact reverse KL)",
    "tcod_f2b": "TCOD F2B",
    "tcod_b2f": "TCOD B2F",
    "sod": "SOD (reference: first step)",
    "sod_floor": "SOD (reference: first above floor)",
    "sod_median": "SOD (reference: median)",
    "sod_tcod": "SOD + TCOD F2B",
}


def wins(run: Path, label: str) -> dict[int, bool]:
    """Success by reported game."""
    return {t.seed: t.success for t in Store(run / "store").read(f"eval-{label}")}


def rates(runs: Path, method: str, seeds: Sequence[int], label: str) -> list[float]:
    """Success of each seed."""
    return [float(np.mean(list(wins(runs / f"seed-{seed}" / method, label).values()))) for seed in seeds]


def percent(values: Sequence[float]) -> str:
    """Mean success over seeds with its interval, and each seed's own."""
    mean, low, high = (100 * x for x in across_seeds(values))
    own = ", ".join(f"{100 * x:.0f}" for x in values)
    return f"{mean:.1f} [{max(low, 0):.1f}, {min(high, 100):.1f}] ({own})"


def minus(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The difference, paired on seeds."""
    pairs = [a - b for a, b in zip(ours, theirs, strict=True)]
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * x for x in across_seeds(pairs)))


def row(runs: Path, method: str, seeds: Sequence[int]) -> str:
    its = [load_run(runs / f"seed-{s}" / method).iterations for s in seeds]
    tokens = np.mean([sum(r["action_tokens"] for r in run) for run in its])
    kl = np.mean([np.mean([r["kl"] for r in run[-10:]]) for run in its])
    small = np.mean([r["weight_small_share"] for run in its for r in run])
    after, before, opd = (
        rates(runs, *which) for which in ((method, seeds, "after"), (method, seeds, "before"), ("opd", seeds, "after"))
    )
    cells = (
        METHODS[method],
        percent(after),
        minus(after, before),
        "" if method == "opd" else minus(after, opd),
        f"{kl:.3f}",
        f"{tokens / 1000:.0f}k",
        f"{100 * small:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def mean_weights(runs: Path, method: str, seeds: Sequence[int]) -> str:
    """Mean SOD weight of steps 1 to 12 over all iterations."""
    rows = []
    for seed in seeds:
        for record in load_run(runs / f"seed-{seed}" / method).iterations:
            values = [np.nan if v is None else v for v in record["weight_by_step"]][:12]
            rows.append(values + [np.nan] * (12 - len(values)))
    return " ".join(f"{v:.2f}" for v in np.nanmean(np.array(rows, dtype=float), axis=0))


def kl_by_turn(runs: Path, method: str, seeds: Sequence[int], part: slice) -> np.ndarray:
    """Token-weighted mean KL in nats at each turn (20) over some iterations of all seeds; NaN below 50 tokens."""
    total, count = np.zeros(20), np.zeros(20)
    for seed in seeds:
        for record in load_run(runs / f"seed-{seed}" / method).iterations[part]:
            for turn, (value, n) in enumerate(zip(record["kl_by_turn"], record["tokens_by_turn"], strict=True)):
                if value is not None and turn < 20:
                    total[turn] += value * n
                    count[turn] += n
    return np.where(count >= 50, total / np.maximum(count, 1), np.nan)


def figure(runs: Path, methods: Sequence[str], seeds: Sequence[int], path: Path) -> None:
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.0), constrained_layout=True)
    colours = plt.get_cmap("tab10")
    for i, method in enumerate(methods):
        points: dict[int, list[float]] = {}
        for seed in seeds:
            for record in load_run(runs / f"seed-{seed}" / method).evaluations("during"):
                points.setdefault(record["iteration"], []).append(record["success"])
        xs = sorted(points)
        mean = np.array([100 * np.mean(points[x]) for x in xs])
        left.plot(xs, mean, "o-", ms=3, color=colours(i), label=METHODS[method])
        low = [100 * min(points[x]) for x in xs]
        high = [100 * max(points[x]) for x in xs]
        left.fill_between(xs, low, high, color=colours(i), alpha=0.10, lw=0)
    left.set(xlabel="iteration", ylabel="success on validation games, T = 1 (%)", title=f"mean and range of {len(seeds)} seeds")
    left.legend(frameon=False, fontsize=7.5)
    turns = np.arange(1, 21)
    for part, label, colour in ((slice(0, 10), "iterations 1–10", "0.25"), (slice(-10, None), "last 10", "tab:blue")):
        right.plot(turns, kl_by_turn(runs, "opd", seeds, part), "o-", ms=3, color=colour, label=label)
    right.set(xlabel="turn", ylabel="reverse KL (nats/token)", title="OPD: divergence by turn", ylim=(0, None))
    right.legend(frameon=False)
    fig.savefig(path, dpi=150)
    plt.close(fig)


def write_results(runs: Path, seeds: Sequence[int], out: Path) -> None:
    """Write `results.md` and `results.png` for the methods that have finished runs at every seed."""
    done = [m for m in METHODS if all((runs / f"seed-{s}" / m / "summary.json").exists() for s in seeds)]
    lines = [
        f"Seeds {', '.join(map(str, seeds))}; 256 held-out games a seed, sampled at temperature 1. Success in %: mean over",
        "seeds with its 95 % interval (Student's t over seeds, each with its own pair of models) and (each seed's own).",
        "Differences are paired on seeds. KL at the end: over the last 10 iterations.", "",
        f"Before: student {percent(rates(runs, done[0], seeds, 'before'))}, "
        f"teacher {percent(rates(runs, done[0], seeds, 'teacher'))}.", "",
        "| method | after | minus before | minus OPD | KL at the end (nats/token) | student tokens | steps with w < 0.01 (%) |",
        "|---|---|---|---|---|---|---|",
        *(row(runs, m, seeds) for m in done), "",
    ]  # fmt: skip
    for method in done:
        if method.startswith("sod"):
            lines.append(f"Mean weight of steps 1 to 12, {METHODS[method]}: {mean_weights(runs, method, seeds)}")
            lines.append("")
    for part, label in ((slice(0, 10), "iterations 1 to 10"), (slice(-10, None), "the last 10")):
        values = " ".join("–" if np.isnan(v) else f"{v:.2f}" for v in kl_by_turn(runs, "opd", seeds, part))
        lines.append(f"KL by turn 1 to 20 under OPD, {label}: {values}")
        lines.append("")
    (out / "results.md").write_text("\n".join(lines), encoding="utf-8")
    figure(runs, done, seeds, out / "results.png")
    print((out / "results.md").read_text(encoding="utf-8"))
