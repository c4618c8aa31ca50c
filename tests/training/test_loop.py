"""What an iteration plays: which tasks, and how much of an expert's episode in front."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from agentdistill import curricula
from agentdistill.chat import Chat
from agentdistill.config import parse_experiment
from agentdistill.rollout import Rollout, Task
from agentdistill.training.loop import Roles, plan_tasks


def planned(rollout: Rollout, said: list[str]) -> list[Task]:
    about = {"env": {"id": "lab/Guess-v0", "max_turns": 6}, "student": {"model": "a/b"}, "train": {"tasks": 5, "rollouts": 2}}
    schedule = curricula.load("tcod-b2f")
    roles = Roles(cast(Any, None), None, cast(Any, None), schedule, rollout, range(100, 104))
    return plan_tasks(parse_experiment(about), roles, 1, said.append)


def test_back_to_front_puts_each_tasks_expert_in_front(chat: Chat, make_rollout: Callable[..., Rollout]) -> None:
    said: list[str] = []
    serial = make_rollout(chat, lambda key, turn: "")
    tasks = planned(serial, said)
    assert [task.group for task in tasks] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert {task.seed for task in tasks[:8]} == {100, 101, 102, 103}
    for task in tasks:
        expert = serial.pool.expert_actions(task.seed, 6)
        assert expert is not None
        assert list(task.prefix) == expert[:-1]
    assert any(len(task.prefix) > 1 for task in tasks)
    assert said == []


def test_a_task_whose_expert_fails_is_played_from_the_start_and_told_of(
    chat: Chat, make_rollout: Callable[..., Rollout]
) -> None:
    said: list[str] = []
    tasks = planned(make_rollout(chat, lambda key, turn: "", fault="expert", fault_seeds=[101]), said)
    failed = [task for task in tasks if task.seed == 101]
    assert failed
    assert all(task.without_expert == (task in failed) for task in tasks)
    assert [task for task in tasks if not task.prefix] == failed
    (line,) = said
    assert line.startswith(
        f"the expert failed on {len(failed) // 2} of 5 tasks, played from the start: environment 'lab/Guess-v0' "
    )
