"""Run the arithmetic experiment over several seeds, then write the table and the figure of what came out.

    python experiments/arithmetic/run.py [--seeds 0 1 2] [--runs runs/arithmetic]

Runs that are finished are not run again, and one that was stopped goes on. The reported questions (split `test`) are used for
nothing else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from agentdistill.intervals import across_seeds, wilson
from agentdistill.report.data import load_run

HERE = Path(__file__).parent
LABELS = {"before": "student before", "after": "student after", "teacher": "teacher"}


def reported(run: Path, label: str) -> tuple[int, int]:
    """Questions of the test split that were answered right, and how many there were."""
    found = load_run(run).evaluations(label)[0]
    return round(found["success"] * found["n"]), found["n"]


def percent(won: int, n: int) -> str:
    rate = wilson(won, n)
    return f"{100 * rate.success:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def spread(interval: tuple[float, float, float], least: float = -1.0, most: float = 1.0) -> str:
    mean, low, high = (100 * min(max(x, least), most) for x in interval)
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def table(runs: Sequence[tuple[int, Path]]) -> str:
    head = "| seed | " + " | ".join(LABELS.values()) + " | student tokens |"
    lines = [head, "|" + "---|" * (len(LABELS) + 2)]
    for seed, run in runs:
        tokens = sum(record["action_tokens"] for record in load_run(run).iterations)
        cells = [percent(*reported(run, label)) for label in LABELS]
        lines.append(f"| {seed} | {' | '.join(cells)} | {tokens / 1000:.0f}k |")
    if len(runs) > 1:
        each = {label: [won / n for won, n in (reported(run, label) for _, run in runs)] for label in LABELS}
        means = {label: across_seeds(values) for label, values in each.items()}
        gain = across_seeds([after - before for before, after in zip(each["before"], each["after"], strict=True)])
        lines.append(f"| mean | {' | '.join(spread(each, least=0.0) for each in means.values())} | |")
        lines += ["", f"Gain, after minus before, mean over seeds: {spread(gain)} points."]
    return "\n".join(lines) + "\n"


def figure(runs: Sequence[tuple[int, Path]], path: Path) -> None:
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6), constrained_layout=True)
    for index, (seed, run) in enumerate(runs):
        colour = plt.get_cmap("tab10")(index)
        during = load_run(run).evaluations("during")
        left.plot(
            [record["iteration"] for record in during], [100 * record["success"] for record in during],
            "o-", ms=3, color=colour, label=f"seed {seed}",
        )  # fmt: skip
        kl = [record["kl"] for record in load_run(run).iterations]
        right.plot(range(1, len(kl) + 1), kl, color=colour, lw=0.9)
    left.set(xlabel="iteration", ylabel="success on validation questions, T = 1 (%)", ylim=(0, 100))
    left.legend(frameon=False)
    right.set(xlabel="iteration", ylabel="reverse KL (nats/token)", ylim=(0, None))
    fig.savefig(path, dpi=150)
    plt.close(fig)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/arithmetic"))
    arguments = parser.parse_args()
    runs = [(seed, arguments.runs / f"seed-{seed}") for seed in arguments.seeds]
    for seed, run in runs:
        if not (run / "summary.json").exists():
            words = ["train", str(HERE / "opd.yaml"), "--out", str(run), "--resume", "--seed", str(seed)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run([sys.executable, "-m", "agentdistill.cli", *words], env=environment, check=True)
    (HERE / "results.md").write_text(table(runs), encoding="utf-8")
    figure(runs, HERE / "results.png")
    print(table(runs))


if __name__ == "__main__":
    main()
