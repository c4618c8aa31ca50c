"""Environments that die, hang, leak, print and change their mind on command. Worker processes import this file: no torch."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import agentdistill as ad
from agentdistill.trajectory import ToolCall

TURNS = 5


@ad.register("lab/Odds-v0")
class Odds(ad.TextEnv):
    """Says numbers that depend on the seed and on everything said before; some actions are orders.

    Args:
        leak: MiB that every episode leaves behind.
        pause: seconds a step takes.
        dies: seeds whose third step kills the process.
        once: file; where there is none, the third step makes it and kills the process.
        child: MiB that a process holds which each environment starts.
        expert_fails: seeds whose expert raises.
    """

    system_prompt = "Say a number."

    def __init__(
        self, leak: int = 0, pause: float = 0.0, dies: tuple[int, ...] = (), once: str = "",
        child: int = 0, expert_fails: tuple[int, ...] = (), **others: Any,
    ) -> None:  # fmt: skip
        self.leak, self.pause, self.dies, self.once = leak, pause, tuple(dies), once
        self.expert_fails = tuple(expert_fails)
        self.kept: list[bytearray] = []
        if child:
            source = f"import sys; kept = bytearray(b'x' * ({child} << 20)); print(1, flush=True); sys.stdin.read()"
            self.child = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self.child.stdout is not None
            self.child.stdout.readline()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.seed, self.rng, self.turn = int(seed or 0), random.Random(seed), 0
        self.kept.append(bytearray(b"x" * (self.leak << 20)))
        return f"task {seed}: {self.rng.random()}", {"task_id": f"odds-{seed}"}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        time.sleep(self.pause)
        if self.turn == 3 and self.once and not Path(self.once).exists():
            Path(self.once).touch()
            os.abort()
        if action == "die" or (self.turn == 3 and self.seed in self.dies):
            os.kill(os.getpid(), 11)
        if action == "raise":
            raise ValueError("broken pipe")
        if action == "hang":
            time.sleep(1000)
        if action.startswith("wait for "):
            deadline = time.monotonic() + 10
            while not Path(action[9:]).exists() and time.monotonic() < deadline:
                time.sleep(0.002)
            return str(Path(action[9:]).exists()), 0.0, True, False, {}
        if action == "print":
            os.write(1, b"noise from C\n")
            print("noise", file=sys.stdout, flush=True)
        if action in ("pid", "big"):
            return str(os.getpid()) if action == "pid" else "x" * 8_000_000, 0.0, False, False, {}
        if action == "odd":
            return "x", 0.0, False, False, {"tool_calls": [ToolCall("t", {"f": lambda: 0}, "", True)]}
        if action == "other":
            return str(time.monotonic()), 0.0, False, False, {}
        self.rng.seed(f"{self.rng.random()} {action}")
        over = self.turn == TURNS
        return f"{self.rng.random()}", self.rng.random(), over, False, {"success": over and self.rng.random() < 0.5}

    def expert_action(self) -> str:
        if self.seed in self.expert_fails:
            raise ValueError("lost")
        return f"expert {self.rng.random()}"  # asking it changes what comes

    def random_action(self, rng: random.Random) -> str:
        return f"random {rng.random()} {self.rng.random()}"

    def plan(self) -> str:
        return f"wait, {self.seed}"
