"""Every built-in environment's expert comes through one interface, wins as often as it should, and can be replayed halfway."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from agentdistill import environment
from agentdistill.chat import Chat
from agentdistill.curricula import load
from agentdistill.demonstrations import demonstrate
from agentdistill.policies.base import SamplingParams
from agentdistill.policies.scripted import ScriptedSampler
from agentdistill.pool import EnvPool
from agentdistill.recorded import Record, Recorded, usable
from agentdistill.rollout import Limits, Rollout, Task
from tests.envs.test_registered import IDS
from tests.needs import needs_environment

LIMIT = 60
_CALL = '<tool_call>{"name": "calculator", "arguments": {"expression": "2 * 21"}}</tool_call>'
_ROW = {"question": "2 * 21?", "answer": 42, "split": "train", "demonstration": [_CALL, r"\boxed{42}"]}


@dataclass(frozen=True)
class Case:
    """How an expert is tried: the environment's options, how many tasks of its first split, and how many of them it wins."""

    options: dict[str, Any] = field(default_factory=dict)
    tasks: int = 4
    wins: int = 4


CASES: dict[str, Case] = {
    "agentdistill/ALFWorld-v0": Case(tasks=2, wins=2),
    "agentdistill/ScienceWorld-v0": Case({"tasks": ["find-non-living-thing"], "max_turns": LIMIT}, tasks=1, wins=1),
    "agentdistill/Tools-v0": Case({"tools": ["calculator"], "tasks": [_ROW]}, tasks=1, wins=1),
    "agentdistill/WebShop-v0": Case(tasks=16, wins=15),  # 96 % of the test goals
}


@pytest.fixture(params=IDS)
def pool(request: pytest.FixtureRequest) -> Iterator[EnvPool]:
    needs_environment(request.param)
    made = EnvPool(request.param, CASES.get(request.param, Case()).options)
    yield made
    made.close()


def test_it_wins_by_demonstration_by_prefix_and_by_record(pool: EnvPool, chat: Chat) -> None:
    """One test, because some take seconds to start."""
    case = CASES.get(pool.env_id, Case())
    split = next(seeds for seeds in environment.splits(pool.prototype()).values() if seeds)
    seeds = list(split[: case.tasks])
    shown = demonstrate(pool, seeds, chat, max_turns=LIMIT, max_context=1 << 20)
    assert sum(t.success for t in shown) == case.wins
    won = {t.seed: [turn.action for turn in t.turns] for t in shown if t.success}
    assert pool.expert_episodes(seeds, LIMIT) == [won.get(seed) for seed in seeds]
    played_from_a_prefix(pool, chat, won)
    again = Recorded(won)
    records = [Record(i, actions, seed, success=True) for i, (seed, actions) in enumerate(won.items())]
    assert usable(records, pool, seeds, LIMIT) == again


def played_from_a_prefix(pool: EnvPool, chat: Chat, won: dict[int, list[str]]) -> None:
    """TCOD's back-to-front: the expert's first actions are replayed, and a student that knows the rest of them wins."""
    tasks, rest = [], []
    for group, (seed, actions) in enumerate(list(won.items())[:2]):
        cut = load({"kind": "tcod-b2f", "every": 1}).cut(1, len(actions), LIMIT).prefix_turns
        assert cut == max(0, len(actions) - 2)
        tasks.append(Task(seed, 0, group=group, prefix=actions[:cut]))
        rest.append(actions[cut:])
    sampler = ScriptedSampler(chat, lambda slot, turn: rest[slot][turn])
    rollout = Rollout(pool, sampler, chat, Limits(max_turns=LIMIT, max_context=1 << 20))
    for played, task in zip(rollout.run(tasks, SamplingParams(max_tokens=4096), "b2f"), tasks, strict=True):
        assert played.success
        assert [turn.author for turn in played.turns].count("expert") == played.prefix_turns == len(task.prefix)
