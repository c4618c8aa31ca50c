"""Actors that hang, that a question kills, that refuse, and that there is no room for. They are small ones, without torch."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agentdistill.errors import UserError
from tests.needs import needs

needs("ray", "pip install 'agentdistill[ray]'")


def small() -> type:
    """What an actor is here; made in a function, so that it is sent whole."""

    class Small:
        async def begin(self) -> str:
            import ray

            return ray.get_runtime_context().get_node_id()

        async def pid(self) -> int:
            return os.getpid()

        async def double(self, number: int, seconds: float = 0) -> int:
            import asyncio

            await asyncio.sleep(seconds)
            return 2 * number

        async def die(self) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        async def refuse(self) -> None:
            from agentdistill.errors import UserError

            raise UserError("not today")

        async def break_(self) -> None:
            raise KeyError("lost")

    return Small


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def crew(cluster: Any, said: list[str]) -> Iterator[Any]:
    """Two of them."""
    with started(said, timeout=60) as made:
        yield made


@contextmanager
def started(said: list[str], timeout: float, wait: float = 120, cpus: float = 0.2) -> Iterator[Any]:
    from agentdistill.cluster.crew import Crew
    from agentdistill.cluster.placement import Place, Reservation

    places = [Place("sampler", i, cpus) for i in range(2)]
    reservation = Reservation(places, spread=False, wait=wait)
    made: Any = None
    try:
        made = Crew(
            places, reservation, (small(), ()), welcome=lambda actor: actor.begin.remote(), timeout=timeout, wait=wait,
            say=said.append,
        )  # fmt: skip
        yield made
    finally:
        if made is not None:
            made.close()
        reservation.close()


def test_an_actor_that_hangs_counts_as_lost_and_the_others_do_not(crew: Any, said: list[str]) -> None:
    crew._timeout = 1.5
    (before,) = crew.all([crew.put(1, "pid")])
    os.kill(before, signal.SIGSTOP)
    tickets = [crew.put(0, "double", 1), crew.put(1, "double", 2), crew.put(1, "double", 3)]
    assert crew.all(tickets) == [2, 4, 6]
    (line,) = said
    assert "sampler 1 on " in line
    assert "was lost: it gave no answer within 1.5 s (engine.timeout); replaced there after" in line
    assert line.endswith("and asked again what it had not answered (2)")
    assert not alive(before)


def test_actors_that_are_lost_together_are_replaced_together(crew: Any, said: list[str]) -> None:
    pids = crew.all([crew.put(place, "pid") for place in (0, 1)])
    tickets = [crew.put(place, "double", place, 0.5) for place in (0, 1)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert crew.all(tickets) == [0, 2]
    assert crew.replaced == len(said) == 2


def test_what_is_told_to_an_actor_that_is_being_replaced_is_told_to_nobody(crew: Any) -> None:
    """As when `engine.overlap` plays in one thread, and the other has had its update."""
    pids = crew.all([crew.put(place, "pid") for place in (0, 1)])

    def welcome(actor: Any) -> Any:
        crew.tell(1, "double", 1)  # 0 comes first, and 1 is not there yet
        return actor.begin.remote()

    crew._welcome = welcome
    tickets = [crew.put(place, "double", place, 0.5) for place in (0, 1)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    assert crew.all(tickets) == [0, 2]


def test_a_question_that_costs_every_actor_that_it_is_asked_is_given_up(crew: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentdistill.cluster.crew.DEATHS", 2)
    with pytest.raises(UserError, match="sampler 0 was lost 2 times with the same question in die"):
        crew.all([crew.put(0, "die")])


def test_what_an_actor_raises_is_raised_here(crew: Any) -> None:
    with pytest.raises(UserError, match=r"^not today$"):
        crew.all([crew.put(0, "refuse")])
    with pytest.raises(UserError, match="sampler 1 failed in break_: KeyError"):
        crew.all([crew.put(1, "break_")])


def test_answers_that_are_dropped_are_not_asked_again(crew: Any) -> None:
    (pid,) = crew.all([crew.put(0, "pid")])
    crew.drop([crew.put(0, "double", 1, 60)])
    os.kill(pid, signal.SIGKILL)
    assert crew.all([crew.put(0, "double", 2)]) == [4]
    assert crew._members[0].out == []


def test_too_large_a_crew_is_refused_by_what_is_short(cluster: Any, said: list[str]) -> None:
    with pytest.raises(UserError) as error, started(said, timeout=5, wait=0.1, cpus=64):
        pass
    assert "the Ray cluster has no room for 2 of 2 samplers, of 64 CPU each (its nodes: 1 × 1 CPU)" in str(error.value)
    with (
        started(said, 5, cpus=0.4),
        pytest.raises(UserError, match="no room for 2 actors within 1 s"),
        started(said, 5, 1, 0.4),
    ):
        pass


def alive(pid: int) -> bool:
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True
