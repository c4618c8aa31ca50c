"""A small finished run with all that the viewer shows: several environments, stop reasons, scorers, tool calls, odd texts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from agentdistill import api, environment, graders
from agentdistill.chat import Chat
from agentdistill.environment import TextEnv
from agentdistill.policies.base import SamplingParams
from agentdistill.policies.load import load_model
from agentdistill.policies.scripted import ScriptedSampler
from agentdistill.policies.tiny import tiny_model
from agentdistill.pool import EnvPool
from agentdistill.rollout import Limits, Rollout, Task
from agentdistill.store import Store
from agentdistill.tool import ToolError, tool
from agentdistill.trajectory import Scores, Trajectory, Turn
from tests.training.scored_run import RUN

EXPERIMENT: dict[str, Any] = {
    **RUN,
    "env": {**RUN["env"], "max_context": 1024},  # room for the tools' descriptions, which come later
    "method": {"preset": "sod", "step_weight": {"delta": 0.5}},
    "schedule": {"kind": "tcod-f2b", "start": 1, "every": 1},
    "train": {"iterations": 3, "tasks": 3, "rollouts": 2, "checkpoint_every": 3},
}
SCRIPT, CLOSING, LINK, OVERRIDE = "<script>alert(1)</script>", "</script><b>bold</b>", "javascript:alert(2)", "abc\u202ecba"
LONG = "deep " * 210_000  # more than a megabyte


@tool
def convert(amount: float) -> float:
    """Metres in so many kilometres."""
    if amount < 0:
        raise ToolError("a length is never negative")
    return amount * 1000


class HostileEnv(TextEnv):
    """Answers with what a page must not take for its own; the seed chooses."""

    system_prompt = SCRIPT

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.answers = [[CLOSING, LINK, OVERRIDE], [LONG]][int(seed or 0) % 2]
        return "<img src=x onerror=alert(3)>", {"task_id": f"{CLOSING}-{seed}", "task_type": SCRIPT}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        answer = self.answers.pop(0)
        return answer, 0.0, not self.answers, False, {"success": False}


def play(folder: Path) -> Path:
    """Train, let scripted agents play besides, and score it all by a second model."""
    with patch("agentdistill.report.report"):  # its figures take longest, and no test here looks at them
        api.train(EXPERIMENT, out=folder, say=lambda _: None)
    store, chat = Store(folder / "store"), Chat(load_model(str(folder / "final")).tokenizer)
    store.write("tools", _tools(chat))
    store.write("hostile", _hostile(chat))
    other = _other(folder)
    api.score(folder, str(other), name="other", entropy=True, top_k=5, say=lambda _: None)
    api.score(folder, str(folder / "student"), name="student", say=lambda _: None)
    return folder


def _other(folder: Path) -> Path:
    """A model of the same vocabulary and of other, far from uniform, distributions."""
    lm = load_model(str(folder / "final"))
    model = tiny_model("32x1", len(lm.tokenizer), 7, context=512)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(6)
    model.save_pretrained(folder / "other")
    lm.tokenizer.save_pretrained(folder / "other")
    return folder / "other"


def _rollout(chat: Chat, env: str, messages: Sequence[Sequence[str]], limits: Limits, **options: Any) -> list[Trajectory]:
    pool = EnvPool(env, options)
    try:
        rollout = Rollout(pool, ScriptedSampler(chat, lambda key, turn: messages[key][turn]), chat, limits)
        tasks = [Task(seed, seed, seed) for seed in range(len(messages))]
        return rollout.run(tasks, SamplingParams(max_tokens=200), env.rpartition("/")[2])
    finally:
        pool.close()


def _tools(chat: Chat) -> list[Trajectory]:
    """Three questions: one answered by a call, one after a failed call, one cut short by the environment."""
    rows = [
        {"question": f"How many metres are {n} km?", "answer": 1000 * n, "id": f"km-{n}", "task_type": kind}
        for n, kind in ((2, "easy"), (3, "hard"), (4, "hard"))
    ]
    call = '<tool_call>{"name": "convert", "arguments": {"amount":%s}}</tool_call>'  # without the space that JSON has
    said = [[call % 2, r"\boxed{2000}"], [call % -3, call % 3, r"\boxed{3000}"], ["hm"] * 9]
    environment.register("lab/ViewedUnits-v0", tools=[convert], tasks=rows, grade=graders.number, max_turns=4)
    try:
        found = _rollout(chat, "lab/ViewedUnits-v0", said, Limits(max_turns=9, max_context=1024))
    finally:
        environment.unregister("lab/ViewedUnits-v0")
    shortest = found[2]  # four turns, so a step of each provenance: the scripted student is always sure of what it says
    shortest.scores["sure"] = _scores(shortest, (0.0, 0.0, -3.0, -3.0))
    shortest.scores["unsure"] = _scores(shortest, (-0.01, -3.0, -0.01, -3.0))
    return found


def _scores(item: Trajectory, by_turn: Sequence[float]) -> Scores:
    """Log-probs that are the same on all tokens of a turn."""
    return Scores(
        np.concatenate([np.full(len(turn.action_ids), value) for turn, value in zip(item.turns, by_turn, strict=True)])
    )


def _hostile(chat: Chat) -> list[Trajectory]:
    """Episodes of a hostile game, and one of them as an import with lone surrogates and without any number would be."""
    environment.register("lab/Hostile-v0", HostileEnv)
    try:
        found = _rollout(chat, "lab/Hostile-v0", [[SCRIPT, LINK, OVERRIDE], [CLOSING]], Limits(max_turns=5, max_context=1024))
    finally:
        environment.unregister("lab/Hostile-v0")
    first, nan = found[0], math.nan

    def broken(turn: Turn) -> Turn:
        none = [nan] * len(turn.action_ids)
        return dataclasses.replace(turn, observation="\ud800 \udfff \x1b[31m\x00", logprobs=none, logprobs_t1=none, reward=nan)

    lost = dataclasses.replace(
        first, id="imported-0", policy="imported:x", temperature=nan, turns=[broken(turn) for turn in first.turns],
        scores={"teacher": _scores(first, [-math.inf] * len(first.turns))},
    )  # fmt: skip
    return [*found, lost]
