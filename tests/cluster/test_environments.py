"""Environments in actors: a pool's answers as in one process, whoever is lost meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentdistill.engines.registry import Setup
from agentdistill.pool import EnvPool, Question, Workers
from tests.needs import needs

needs("ray", "pip install 'agentdistill[ray]'")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def pool(cluster: Any, setup_of: Callable[..., Setup], said: list[str]) -> Iterator[EnvPool]:
    """Two workers in actors."""
    from agentdistill.cluster.engine import RayEngine

    engine = RayEngine(setup_of(said, environments=2))
    made = EnvPool("agentdistill/Arithmetic-v0", {}, workers=Workers(2, start=engine.worker))
    yield made
    made.close()
    engine.close()


def played(pool: EnvPool, meanwhile: Callable[[int], None] = lambda _: None) -> list[Any]:
    """Four episodes of four questions each."""
    answers = pool.ask([Question(slot, "reset", (slot,)) for slot in range(4)])
    for turn, action in enumerate(("3", "9", "12")):
        meanwhile(turn)
        answers += pool.ask([Question(slot, "step", (action,)) for slot in range(4)])
    return [(each.observation, each.reward, each.terminated) for each in answers]


def test_actors_answer_as_this_process_does(pool: EnvPool) -> None:
    assert played(pool) == played(EnvPool("agentdistill/Arithmetic-v0"))


def test_a_killed_actor_is_replaced_and_its_episodes_played_again(pool: EnvPool, said: list[str]) -> None:
    from agentdistill.cluster.connect import ray

    def kill(turn: int) -> None:
        if turn == 1:
            worker: Any = pool._away.processes[0]  # type: ignore[union-attr]
            os.kill(ray.get(worker._actor.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)

    assert played(pool, kill) == played(EnvPool("agentdistill/Arithmetic-v0"))
    (line,) = [each for each in said if "was lost" in each]
    assert "environment" in line
    assert "its process ended; replaced there, and its episodes are played again" in line


def test_a_worker_process_that_dies_in_its_actor_is_replaced_as_one_of_this_machine(pool: EnvPool) -> None:
    from agentdistill.cluster.connect import ray

    def kill(turn: int) -> None:
        if turn == 0:
            worker: Any = pool._away.processes[1]  # type: ignore[union-attr]
            ray.get(worker._actor.__ray_call__.remote(lambda host: os.kill(host._process.pid, signal.SIGKILL)))

    assert played(pool, kill) == played(EnvPool("agentdistill/Arithmetic-v0"))


def test_what_is_asked_of_a_worker_process_that_has_just_died_is_no_error(pool: EnvPool) -> None:
    """Ray would print it as one, in the middle of the log."""
    from agentdistill.cluster.connect import ray

    played(pool)
    actor: Any = pool._away.processes[0]._actor  # type: ignore[union-attr]
    ray.get(actor.__ray_call__.remote(lambda host: os.kill(host._process.pid, signal.SIGKILL)))
    while ray.get(actor.__ray_call__.remote(lambda host: host._process.link.fileno())) != -1:  # that is heard in a moment
        time.sleep(0.05)
    assert ray.get(actor.ask.remote([Question(0, "reset", (0,))])) is None
