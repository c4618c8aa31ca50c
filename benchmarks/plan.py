"""What `agentdistill plan` says of an experiment, beside what the experiment then needs.

    python benchmarks/plan.py [--iterations 4] [--only tiny]

Each experiment is trained for a few iterations in a process of its own, or by two trainer ranks over gloo, whose peak resident
memory the kernel tells and whose seconds stand in `timings.jsonl` (the first iteration is left out: it warms up). Then the plan
is made of the same experiment on the same machine, with the lengths of the episodes that were played. The last line is one JSON
object: by experiment `memory` (of each process, rank 0 first) and `time`, what was planned over what was needed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHORT = {"eval.tasks": 4, "eval.every": 0, "eval.temperature": 1.0, "log.backends": []}
PHASES = ("generate", "environment", "score", "update")


@dataclass(frozen=True)
class Case:
    """An experiment, what of it is changed, and how many ranks train it (0: one process)."""

    path: str
    changes: dict[str, Any] = field(default_factory=dict)
    ranks: int = 0


_WIDE = {
    "student.sft.steps": 1, "student.sft.batch": 1, "teacher.sft.steps": 1, "teacher.sft.batch": 1, "eval.tasks": 1,
    "student.model": "tiny:256x8", "env.max_turns": 2, "sampling.max_tokens": 8, "train.tasks": 32, "train.token_budget": 4096,
}  # fmt: skip
CASES = {
    "tiny": Case("experiments/tiny.yaml", {"student.sft.steps": 200, "teacher.sft.steps": 100}),
    "smollm2": Case("experiments/smollm2/textworld.yaml", {"train.tasks": 8}),
    "smollm2-calculator": Case("experiments/smollm2/calculator.yaml", {"train.tasks": 8}),
    "ranks": Case("experiments/tiny.yaml", _WIDE, ranks=2),
    "ranks-checkpointing": Case("experiments/tiny.yaml", {**_WIDE, "train.activation_checkpointing": True}, ranks=2),
}


def train(case: Case, changes: dict[str, Any], folder: Path) -> list[int]:
    """Run it; peak bytes of each process, in the order of ranks."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(case.ranks)] if case.ranks else []
    command = [sys.executable, *launch, "-m", "agentdistill", "train", str(ROOT / case.path), "--out", str(folder)]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // case.ranks))} if case.ranks else {}
    run = subprocess.Popen([*command, *overrides(changes)], stdout=subprocess.DEVNULL, env={**os.environ, **threads})
    peaks: dict[str, int] = {}
    while run.poll() is None:
        for pid in _children(run.pid) if case.ranks else [run.pid]:
            peaks |= _peak(pid)
        time.sleep(0.05)
    if run.returncode:
        raise SystemExit(f"training {case.path} failed")
    return [peaks[rank] for rank in sorted(peaks)]


def _children(pid: int) -> list[int]:
    """Processes that a process has started."""
    try:
        return [int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()]
    except OSError:  # it has just ended
        return []


def _peak(pid: int) -> dict[str, int]:
    """The highest resident bytes of a process so far, by its rank."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        rank = next((word[5:].decode() for word in environ if word.startswith(b"RANK=")), "0")
        return {rank: next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))}
    except (OSError, StopIteration):  # it has just ended
        return {}


def seconds(folder: Path) -> dict[str, float]:
    """The median seconds of an iteration, by what they were spent on."""
    lines = [json.loads(line) for line in (folder / "timings.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "total" in line][1:]
    found = {name: statistics.median(line[name] for line in lines) for name in (*PHASES, "total")}
    return found | {"the rest": found["total"] - sum(found[name] for name in PHASES)}


def compare(name: str, case: Case, iterations: int, folder: Path) -> dict[str, Any]:
    """Train, plan, and print both."""
    changes = {**SHORT, **case.changes, "train.iterations": iterations}
    peaks, needed = train(case, changes, folder), seconds(folder)
    plan = planned(case, changes, folder)
    whole = sum(plan["seconds"].values())
    print(f"{name}: an iteration {whole:.2f} planned, {needed['total']:.2f} s needed")
    print("   planned s: " + ", ".join(f"{k} {v:.3f}" for k, v in plan["seconds"].items()))
    print("   needed s:  " + ", ".join(f"{k} {v:.3f}" for k, v in needed.items()), flush=True)
    for role, peak in zip(plan["roles"], peaks, strict=True):
        print(f"   {role['name']}: {role['peak'] / 2**20:.0f} planned, {peak / 2**20:.0f} MiB needed")
        print("      planned MiB: " + ", ".join(f"{k} {v / 2**20:.0f}" for k, v in role["bytes"].items()), flush=True)
    memory = [round(role["peak"] / peak, 3) for role, peak in zip(plan["roles"], peaks, strict=True)]
    return {"memory": memory, "time": round(whole / needed["total"], 3)}


def planned(case: Case, changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The plan as the command makes it, in a process that holds nothing yet."""
    ranks = ["--ranks", str(case.ranks)] if case.ranks else []
    command = [sys.executable, "-m", "agentdistill", "plan", str(ROOT / case.path), "--like", str(folder), "--json", *ranks]
    done = subprocess.run([*command, *overrides(changes)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"planning {case.path} failed: {done.stderr}")
    out: dict[str, Any] = json.loads(done.stdout)
    return out


def overrides(changes: dict[str, Any]) -> list[str]:
    """As words of a command."""
    return [word for name, value in changes.items() for word in (f"--{name}", json.dumps(value))]


def main() -> None:
    """Compare all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--only", choices=sorted(CASES), action="append")
    arguments = parser.parse_args()
    out: dict[str, Any] = {"benchmark": "plan", "load": round(os.getloadavg()[0], 2)}
    with tempfile.TemporaryDirectory() as work:
        for name, case in CASES.items():
            if not arguments.only or name in arguments.only:
                out[name] = compare(name, case, arguments.iterations, Path(work) / name)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
