"""What `agentdistill plan` says of an experiment, beside what the experiment then needs.

    python benchmarks/plan.py [--iterations 4]

Each experiment is trained for a few iterations in a process of its own, whose peak resident memory the kernel tells and whose
seconds stand in `timings.jsonl` (the first iteration is left out: it warms up). Then the plan is made of the same experiment on
the same machine, with the lengths of the episodes that were played. The last line is one JSON object: by experiment `memory`
and `time`, what was planned over what was needed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import agentdistill as ad

ROOT = Path(__file__).resolve().parent.parent
SHORT = {"eval.tasks": 4, "eval.every": 0, "eval.temperature": 1.0, "log.backends": []}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": ("experiments/tiny.yaml", {"student.sft.steps": 200, "teacher.sft.steps": 100}),
    "smollm2": ("experiments/smollm2/textworld.yaml", {"train.tasks": 8}),
    "smollm2-calculator": ("experiments/smollm2/calculator.yaml", {"train.tasks": 8}),
}


def train(path: Path, changes: dict[str, Any], folder: Path) -> tuple[int, float]:
    """Peak bytes of the process, and the median seconds of an iteration."""
    words = [word for name, value in changes.items() for word in (f"--{name}", json.dumps(value))]
    command = [sys.executable, "-c", "import sys; from agentdistill.cli import main; sys.exit(main())"]
    run = subprocess.Popen([*command, "train", str(path), "--out", str(folder), *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(run.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"training {path} failed")
    lines = [json.loads(line) for line in (folder / "timings.jsonl").read_text().splitlines()]
    totals = [line["total"] for line in lines if "total" in line]
    return usage.ru_maxrss * 1024, statistics.median(totals[1:])


def main() -> None:
    """Train, plan, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--only", choices=sorted(CASES), action="append")
    arguments = parser.parse_args()
    out: dict[str, Any] = {"benchmark": "plan", "load": round(os.getloadavg()[0], 2)}
    with tempfile.TemporaryDirectory() as work:
        for name, (path, own) in CASES.items():
            if arguments.only and name not in arguments.only:
                continue
            changes, folder = {**SHORT, **own, "train.iterations": arguments.iterations}, Path(work) / name
            bytes_needed, seconds_needed = train(ROOT / path, changes, folder)
            plan = ad.plan(ROOT / path, like=folder, **changes)
            planned = sum(plan.seconds.values())
            print(f"{name}: memory {plan.peak / 1e9:.2f} planned, {bytes_needed / 1e9:.2f} GB needed; "
                  f"iteration {planned:.2f} planned, {seconds_needed:.2f} s needed")  # fmt: skip
            print("   planned s: " + ", ".join(f"{k} {v:.2f}" for k, v in plan.seconds.items()))
            print("   planned GiB: " + ", ".join(f"{k} {v / 2**30:.2f}" for k, v in plan.bytes.items()))
            last = json.loads((folder / "timings.jsonl").read_text().splitlines()[-1])
            print(f"   needed s:  {last}", flush=True)
            out[name] = {"memory": round(plan.peak / bytes_needed, 3), "time": round(planned / seconds_needed, 3)}
    print(json.dumps(out))


if __name__ == "__main__":
    main()
