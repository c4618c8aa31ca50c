"""Several processes that score a store together: each holds the model, and none is given what another one has."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from agentdistill import child
from agentdistill.errors import UserError
from agentdistill.store_scores import Identity
from agentdistill.training.score_child import CODE, Job
from agentdistill.training.score_portion import Done
from agentdistill.training.score_store import Found

_STDERR = 2
_DYING = 2.0  # seconds between the end of a process's link and its own
GO_ON = "what is scored is stored, and the same command goes on with the rest"


@dataclass(frozen=True, slots=True)
class _Process:
    process: subprocess.Popen[bytes]
    link: Connection


def in_processes(
    count: int, job: Job, passed: Callable[[int], None]
) -> Callable[[Iterable[Found]], Iterator[Done]]:  # fmt: skip
    """Portions given to `count` processes, one at a time to each. They end with the last portion, or with this process.

    Args:
        passed: takes the number of tokens that one of them has read.
    """

    def scoring(portions: Iterable[Found]) -> Iterator[Done]:
        coming, running = iter(portions), list[_Process]()
        try:
            for number in range(count):
                if (found := next(coming, None)) is None:
                    break
                running.append(_start(number, count, job))
                running[-1].link.send(found[0])
            busy = {each.link: each for each in running}
            while busy:
                for link in wait(list(busy)):
                    answer = _receive(busy[link])  # type: ignore[index]
                    if isinstance(answer, int):
                        passed(answer)
                        continue
                    if (found := next(coming, None)) is None:
                        del busy[link]  # type: ignore[arg-type]
                    else:
                        _send(busy[link], found[0])  # type: ignore[index]
                    yield answer
        finally:
            for each in running:
                child.kill(each.process, each.link, os.getpid())

    return scoring


def _start(number: int, count: int, job: Job) -> _Process:
    ours, theirs = socket.socketpair()
    variables = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count)), **_device(number)}
    try:
        process = child.start(CODE, link=theirs, output=_STDERR, variables=variables)
    except OSError as error:
        ours.close()
        raise UserError(f"a scoring process cannot be started: {error.strerror or error}; ask for fewer --workers") from error
    finally:
        theirs.close()
    started = _Process(process, Connection(ours.detach()))
    _send(started, job)
    return started


def _device(number: int) -> dict[str, str]:
    """Which of several GPUs a process takes, in turn."""
    count = torch.cuda.device_count()
    if count < 2:
        return {}
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return {"CUDA_VISIBLE_DEVICES": names[number % count] if len(names) >= count else str(number % count)}


def _send(to: _Process, message: Any) -> None:
    try:
        to.link.send(message)
    except OSError as error:
        raise _gone(to) from error


def _receive(sender: _Process) -> Done | int:
    """A portion that is done, or a number of tokens that were read.

    Raises:
        UserError: when it cannot go on.
    """
    try:
        answer: Done | int | str = sender.link.recv()
    except (EOFError, OSError) as error:
        raise _gone(sender) from error
    if isinstance(answer, str):
        raise UserError(answer)
    return answer


def _gone(ended: _Process) -> UserError:
    try:
        code = ended.process.wait(_DYING)
    except subprocess.TimeoutExpired:
        code = 0
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return UserError(
        f"a scoring process {how}, out of memory perhaps: fewer --workers or a lower --token-budget need less; {GO_ON}"
    )


def job_for(store: Path, name: str, model: str, identity: Identity, **settings: Any) -> Job:
    """What each process is told; paths are made absolute."""
    return Job(str(store.resolve()), name, model, identity, **settings)
