"""An environment for `slow_env.py`: counts its steps, and is slow for some seeds. Worker processes import this file."""

from __future__ import annotations

import time
from typing import Any

import agentdistill as ad


@ad.register("benchmark/Slow-v0")
class Slow(ad.TextEnv):
    """So many turns, whatever is said.

    Args:
        turns: steps an episode takes.
        seconds: that a step takes, where the seed is a multiple of `every`.
        every: one in how many tasks is slow.
    """

    system_prompt = "Say something about each number."

    def __init__(self, turns: int = 6, seconds: float = 2.0, every: int = 8) -> None:
        self.turns, self.seconds, self.every = turns, seconds, every

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """The first number."""
        super().reset(seed=seed)
        self.seed, self.turn = int(seed or 0), 0
        return f"The number is {self.seed}.", {"task_id": f"slow-{self.seed}"}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """The next number, late where the task is a slow one."""
        self.turn += 1
        if self.seed % self.every == 0:
            time.sleep(self.seconds)
        return f"The number is {self.seed + self.turn}.", 0.0, self.turn >= self.turns, False, {}
