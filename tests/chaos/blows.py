"""The blows: what can befall a run. A new one is a function of the running thing, registered by a name."""

from __future__ import annotations

import random
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.machine import Process, until
from tests.chaos.running import PATIENCE, Running

TIMEOUT = 8.0
"""Seconds of `env.timeout` in the harness's experiments: more than a busy machine takes to make a game."""
HANG = 1.2 * TIMEOUT
ANSWER = 15.0
"""Seconds of `engine.timeout`: longer than the run itself is made to stand still."""
_NO_ROOM = "^agentdistill: .*(room|space)"
_STOPPED = "^agentdistill: stopped"
_LOST = r"(is|are) lost|Signal 9 \(SIGKILL\) received"  # rank 0, and torchrun may end the other one before it can say so
Strike = Callable[[Running, random.Random], bool]


@dataclass(frozen=True)
class Blow:
    """One kind.

    Attributes:
        strike: does it; False where there was nothing to strike, or it is over.
        codes: exit codes of a run that ends by it; none: the run goes on as if nothing had happened.
        says: the last sentence of such a run, as a regular expression.
        mend: what has to be done before it can go on.
        of: what a case must have to be struck by it, such as `ranks`; every one can be by default.
        rounds: whether what goes on may differ from the undisturbed run by rounding, and so rarely by a token.
    """

    name: str
    strike: Strike
    codes: tuple[int, ...] = ()
    says: str = ""
    mend: Callable[[Running], None] = lambda running: None
    of: str = ""
    rounds: bool = False


BLOWS: dict[str, Blow] = {}


def blow(name: str, **how: object) -> Callable[[Strike], Strike]:
    """Register a function as a blow; the rest as in `Blow`."""

    def register(strike: Strike) -> Strike:
        BLOWS[name] = Blow(name, strike, **how)  # type: ignore[arg-type]
        return strike

    return register


@blow("kill an environment")
def kill_environment(running: Running, rng: random.Random) -> bool:
    """A worker dies, at work, at rest or while it starts."""
    return _met(running) and rng.choice(running.workers).signal(signal.SIGKILL)


@blow("kill all environments")
def kill_environments(running: Running, rng: random.Random) -> bool:
    """All workers die at once, as the kernel ends them when memory is short."""
    return _met(running) and [each.signal(signal.SIGKILL) for each in running.workers].count(True) > 0


@blow("hang an environment")
def hang_environment(running: Running, rng: random.Random) -> bool:
    """A worker is stopped for longer than a call may take."""
    return _met(running) and rng.choice(running.workers).pause(HANG)


@blow("kill a rank", codes=(1,), says=_LOST, of="ranks")
def kill_rank(running: Running, rng: random.Random) -> bool:
    """One trainer rank dies, the first or another; the others end with it."""
    return _met(running, "ranks") and rng.choice(running.ranks).signal(signal.SIGKILL)


@blow("hang a rank", of="ranks")
def hang_rank(running: Running, rng: random.Random) -> bool:
    """One stands still, not for as long as the others wait."""
    return _met(running, "ranks") and rng.choice(running.ranks).pause(HANG)


@blow("kill a sampler", of="ray", rounds=True)
def kill_sampler(running: Running, rng: random.Random) -> bool:
    """One is gone; its successor computes an episode's context at once, and not turn by turn."""
    return _kill_actor(running, rng, "SamplerHost")


@blow("hang a sampler", of="ray", rounds=True)
def hang_sampler(running: Running, rng: random.Random) -> bool:
    """One stands still for longer than an answer may take, and is replaced where it was asked something."""
    return _hang_actor(running, rng, "SamplerHost")


@blow("kill a teacher", of="ray")
def kill_teacher(running: Running, rng: random.Random) -> bool:
    """What it did not score its successor scores, to the same bit."""
    return _kill_actor(running, rng, "TeacherHost")


@blow("hang a teacher", of="ray")
def hang_teacher(running: Running, rng: random.Random) -> bool:
    """As a sampler."""
    return _hang_actor(running, rng, "TeacherHost")


@blow("kill an environment's actor", of="ray")
def kill_environment_actor(running: Running, rng: random.Random) -> bool:
    """And so the worker that it holds."""
    return _kill_actor(running, rng, "EnvironmentHost")


@blow("hang an environment's actor", of="ray")
def hang_environment_actor(running: Running, rng: random.Random) -> bool:
    """Its worker is well, and nobody hears of it."""
    return _hang_actor(running, rng, "EnvironmentHost", HANG)


@blow("kill a trainer's actor", of="trainers")
def kill_trainer(running: Running, rng: random.Random) -> bool:
    """All ranks begin anew, from the last checkpoint, in the same command."""
    return _kill_actor(running, rng, "RankHost")


@blow("hang a trainer's actor", of="trainers")
def hang_trainer(running: Running, rng: random.Random) -> bool:
    """As if it were gone, where it is asked something."""
    return _hang_actor(running, rng, "RankHost")


@blow("kill a node", of="nodes", rounds=True)
def kill_node(running: Running, rng: random.Random) -> bool:
    """Whoever was on it is replaced elsewhere, or on the node that comes for it."""
    if running.nodes is None or not (_met(running, "EnvironmentHost") and running.main):
        return False
    running.nodes.kill(rng)
    return True


@blow("hang the run")
def hang_run(running: Running, rng: random.Random) -> bool:
    """The run's own process is stopped for longer than a call may take, and goes on."""
    return running.main is not None and running.main.pause(HANG)


@blow("kill the run", codes=(-signal.SIGKILL,))
def kill_run(running: Running, rng: random.Random) -> bool:
    """`kill -9`, or a power cut."""
    return running.main is not None and running.main.signal(signal.SIGKILL)


@blow("terminate the run", codes=(130,), says=_STOPPED)
def terminate_run(running: Running, rng: random.Random) -> bool:
    """A cluster takes the machine back."""
    return running.main is not None and running.main.signal(signal.SIGTERM)


@blow("interrupt the run", codes=(130,), says=_STOPPED)
def interrupt_run(running: Running, rng: random.Random) -> bool:
    """Ctrl-C."""
    return running.main is not None and running.main.signal(signal.SIGINT)


def _room(running: Running) -> None:
    """What cannot begin on a full disk says so too; then there is room again."""
    running.start()
    if (code := running.end()) != 1 or not re.search(_NO_ROOM, running.sentence) or running.tracebacks:
        raise AssertionError(f"begun on a full disk, the run ended with {code} and said:\n{running.said}")
    running.disk.clear()


@blow("fill the disk", codes=(1,), says=_NO_ROOM, mend=_room)
def fill_disk(running: Running, rng: random.Random) -> bool:
    """Nothing more can be written, or some thousand bytes only: the run ends at the next file, wherever that is."""
    return running.main is not None and running.disk.fill(rng.choice([0, 0, 4 << 10, 64 << 10, 256 << 10]))


def _kill_actor(running: Running, rng: random.Random, host: str) -> bool:
    return _met(running, host) and rng.choice(running.actors(host)).signal(signal.SIGKILL)


def _hang_actor(running: Running, rng: random.Random, host: str, seconds: float = 1.2 * ANSWER) -> bool:
    return _met(running, host) and rng.choice(running.actors(host)).pause(seconds)


def _met(running: Running, who: str = "workers") -> bool:
    """Wait for such processes: `workers`, `ranks`, or actors of a class; False where the run ends without another."""

    def there() -> list[Process]:
        found: list[Process] = running.actors(who) if who.endswith("Host") else getattr(running, who)
        return found

    until(lambda: there() or running.over, PATIENCE, f"process of its {who}", running.life)
    return bool(there())
