"""Runs under blows, one after another, each held against one that nobody disturbed."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.blows import ANSWER, BLOWS, TIMEOUT, Blow
from tests.chaos.checks import end_faults, metrics_faults, same_tasks_faults, store_faults
from tests.chaos.machine import Disk, Hang, Stopwatch, until
from tests.chaos.nodes import Nodes
from tests.chaos.running import PATIENCE, Running
from tests.forking import Forks

EXPERIMENT = f"""
name: chaos
env: {{id: agentdistill/TextWorld-v0, max_turns: 6, max_context: 256, workers: 2, timeout: {TIMEOUT}, recycle: 30}}
student:
  model: tiny:32x1
  sft: {{demonstrations: 12, steps: 12, batch: 4, checkpoint_every: 5, eval_every: 6, eval_tasks: 4}}
teacher: {{model: tiny:32x1, sft: {{demonstrations: 12, steps: 8, batch: 4, checkpoint_every: 3}}}}
method: {{preset: sod, clip_high: 0.2}}
schedule: {{kind: adaptive, start: 2, threshold: 9.0, window: 2}}
sampling: {{max_tokens: 8}}
train: {{iterations: 12, tasks: 3, rollouts: 2, minibatches: 2, lr: 1.0e-3, checkpoint_every: 3}}
eval: {{tasks: 6, every: 4, every_tasks: 4, temperature: 1.0}}
"""
RAY = ("--engine.kind", "ray", "--engine.timeout", str(ANSWER))
ACTORS = "cpus_per_sampler: 0.2, cpus_per_teacher: 0.2, cpus_per_environment: 0.2, cpus_per_trainer: 0.2, wait: 100"
RANKS = 2
NODES = 3
TORCHRUNS = 1  # its exit code, however what it started has ended
SIZE = 48  # MiB of a disk
EARLY = 0.4  # of the blows that are first after a start fall before there may be metrics
FIRST, LATER = 0.7, 0.4  # seconds after a start, at least, and after a line, at most


@dataclass(frozen=True)
class Case:
    """An experiment under blows.

    Attributes:
        options: what it changes.
        has: what only some blows can strike, see `Blow.of`; with `ranks` torchrun starts it, with `nodes` it connects to a
            cluster, and with `ray` alone it starts its own.
        exact: whether its numbers are to be the undisturbed run's to the bit.
        like: the case that gives the same numbers undisturbed, to the bit, and has no cluster to be started.
    """

    options: tuple[str, ...] = ()
    has: tuple[str, ...] = ()
    exact: bool = True
    like: str = ""


def _ray(sizes: str, *options: str) -> tuple[str, ...]:
    return (*RAY, "--engine.ray", f"{{{sizes}, {ACTORS}}}", *options)


_AHEAD = ("--engine.overlap", "true", "--method.importance", "truncated")
_PACED = ("--engine.async_rollouts", "true")
_PLAYED = "samplers: 2, teachers: 1, environments: 2"
_ALONE = "samplers: 1, teachers: 1, environments: 2"  # with one sampler the same episodes share a batch as in one process
_HOME = ("--env.workers", "0", "--engine.address", "local")
CASES = {
    "plain": Case(),
    "overlap": Case(_AHEAD),
    "adapter": Case(("--student.lora.r", "4", "--teacher", "{model: ema, privileged: true}", "--method", "opsd")),
    "ranks": Case(("--train.rank_timeout", "60"), ("ranks",)),
    "async": Case(_PACED, exact=False),
    "ray": Case(_ray(f"{_PLAYED}, spread: true", "--env.workers", "0"), ("ray", "nodes")),
    "ray-ranks": Case(_ray(f"{_ALONE}, trainers: {RANKS}", *_HOME), ("ray", "trainers"), like="ranks"),
    "ray-overlap": Case(_ray(_ALONE, *_HOME, *_AHEAD), ("ray",), like="overlap"),
    "ray-async": Case(_ray(_PLAYED, *_HOME, *_PACED), ("ray",), exact=False, like="async"),
}


@dataclass
class Tally:
    """What was done, and what was found."""

    rounds: int = 0
    starts: int = 0
    blows: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class Campaign:
    """Rounds of blows: a round is a run from its start to its end.

    Args:
        folder: for experiments, logs, and the runs in which something was found.
        seed: which blows fall, and when.
        say: takes a line for every blow and every fault.
        blows: names of those that fall; all by default.
        forks: see `Running`; torchrun starts its own.
    """

    def __init__(
        self, folder: Path, seed: int, say: Callable[[str], None], blows: Sequence[str] = (), forks: Forks | None = None
    ) -> None:  # fmt: skip
        self.folder, self.rng, self.say, self.tally = folder, random.Random(seed), say, Tally()
        self._names, self._forks = list(blows or BLOWS), forks
        self._bags: dict[Case, list[str]] = {}
        self._rounded = False
        self._seconds: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "chaos.yaml").write_text(EXPERIMENT)

    def round(self, name: str, blows: int) -> None:
        """One run of a case under so many blows; what is found goes into the tally."""
        self.tally.rounds += 1
        try:
            whole = self.whole(name)
        except (Hang, AssertionError) as error:
            self._found("undisturbed", [str(error)])
            return
        label, before = f"round-{self.tally.rounds:03d}-{name}", len(self.tally.faults)
        self._rounded = not CASES[name].exact
        with self._run(label, name) as running:
            try:
                self._strike(running, CASES[name], whole, blows, self._seconds[CASES[name].like or name] / 3)
            except (Hang, AssertionError) as error:
                where = running.stacks() if isinstance(error, Hang) else ""
                self._found(running.log, [f"{error}\n{where}"])
            self.tally.starts += running.starts
            if len(self.tally.faults) > before and running.out.exists():
                running.kill()
                shutil.copytree(running.out, self.folder / f"{label}-kept")

    def whole(self, name: str) -> Path:
        """The folder of a case's undisturbed run, or of its like's, which is made once."""
        name = CASES[name].like or name
        folder = self.folder / f"whole-{name}"
        if name not in self._seconds:
            with self._run(f"undisturbed-{name}", name) as running:
                watch = Stopwatch()
                running.start()
                if code := running.end():
                    raise AssertionError(f"the undisturbed run of '{name}' ended with {code}:\n{running.said}")
                self._seconds[name] = watch.seconds
                self.say(f"{name}: an undisturbed run takes {self._seconds[name]:.1f} s, {running.lines} lines of metrics")
                shutil.copytree(running.out, folder)
        return folder

    @contextlib.contextmanager
    def _run(self, label: str, name: str) -> Iterator[Running]:
        """A run of a case on a disk of its own; neither is there afterwards."""
        case = CASES[name]
        with contextlib.ExitStack() as stack:
            disk = stack.enter_context(Disk(self.folder / label, SIZE))
            nodes = stack.enter_context(Nodes(uuid.uuid4().hex, NODES)) if "nodes" in case.has else None
            options = case.options if nodes is None else (*case.options, "--engine.address", nodes.address)
            ranks = RANKS if "ranks" in case.has else 0
            forks = None if ranks else self._forks
            running = Running(self.folder / "chaos.yaml", disk, self.folder / label, options, ranks, nodes, forks)
            try:
                yield running
            finally:
                running.kill()

    def _strike(self, running: Running, case: Case, whole: Path, blows: int, early: float) -> None:
        total = (whole / "metrics.jsonl").read_bytes().count(b"\n")
        running.start()
        fresh = True
        for left in range(blows, 0, -1):
            started = running.starts
            self._wait(running, total, left, early if fresh else 0.0)
            if running.over:  # before its time came
                break
            self._one(running, case, whole, BLOWS[self._next(case)])
            fresh = running.starts > started
        if code := running.end():
            self._found(running.log, [f"the run ended with {code} and said:\n{running.said[-2000:]}"])
            return
        faults = store_faults(running.out) + _orphaned(running)
        faults += [f"the run came to its end and said:{each[-3000:]}" for each in running.tracebacks]
        self._found(running.log, faults + (same_tasks_faults if self._rounded else end_faults)(running.out, whole))
        if not running.out.joinpath("summary.json").exists():
            self._found(running.log, ["it has no summary"])

    def _one(self, running: Running, case: Case, whole: Path, blow: Blow) -> None:
        """One blow, what holds after it, and on with the run where that was ended by it."""
        at = running.lines
        if not blow.strike(running, self.rng):
            self.tally.missed[blow.name] += 1
            return
        self.tally.blows[blow.name] += 1
        faults = []
        if blow.codes:
            code = running.end()
            known = (*blow.codes, *[TORCHRUNS] * ("ranks" in case.has))
            if code and (code not in known or not re.search(blow.says, running.sentence)):
                faults.append(f"after '{blow.name}' the run ended with {code} and said last: {running.sentence}")
            faults += [f"after '{blow.name}' the run said:{each[-3000:]}" for each in running.tracebacks]
            faults += _orphaned(running)
        self.say(f"round {self.tally.rounds}, line {at}: {blow.name}")
        faults += store_faults(running.out, going=not blow.codes)
        self._rounded = self._rounded or blow.rounds
        if not self._rounded:
            faults += metrics_faults(running.out, whole)
        self._found(running.log, faults)
        if blow.codes and code:
            blow.mend(running)
            running.start()

    def _wait(self, running: Running, total: int, left: int, early: float) -> None:
        """Until a random line of metrics and a moment, or now and then for some of the first seconds after a start."""
        if early and self.rng.random() < EARLY:
            seconds = self.rng.uniform(FIRST, max(FIRST, early))
        else:
            goal = running.lines + self.rng.randint(1, max(1, (total - running.lines) * 2 // (left + 1)))
            until(lambda: running.lines >= goal or running.over, PATIENCE, f"line {goal} of metrics", running.life)
            seconds = self.rng.random() * LATER
        with contextlib.suppress(Hang):
            until(lambda: running.over, seconds, "end")

    def _next(self, case: Case) -> str:
        """Every kind once in random order, then every kind once more, and so on, for each case."""
        bag = self._bags.setdefault(case, [])
        if not bag:
            fitting = [name for name in self._names if BLOWS[name].of in ("", *case.has)]
            bag += self.rng.sample(fitting, len(fitting))
        return bag.pop()

    def _found(self, where: Path | str, faults: list[str]) -> None:
        for fault in faults:
            self.tally.faults.append(f"round {self.tally.rounds}: {fault}")
            self.say(f"FAULT in round {self.tally.rounds} ({where}): {fault}")


def _orphaned(running: Running) -> list[str]:
    left = running.orphans()
    return [f"process {each.pid} outlived the run: {' '.join(each.words)[:200]}" for each in left]
