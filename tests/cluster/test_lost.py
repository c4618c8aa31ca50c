"""A rank that is killed or stands still ends the others in seconds, with a sentence that names it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import Pair


def begun(pair: Pair, out: Path, scenario: str = "endless", timeout: float = 5, linger: float = 0) -> list[int]:
    processes = pair.start(out, scenario, timeout, linger)
    told = out / scenario / "steps"
    began = time.monotonic()
    while not (told.exists() and (told.read_text() or "0") >= "2"):
        assert time.monotonic() - began < 60
        time.sleep(0.02)
    return processes


def ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def wait_for_the_end(process: int) -> None:
    began = time.monotonic()
    while not ended(process):
        assert time.monotonic() - began < 60
        time.sleep(0.05)


@pytest.fixture
def working(pair: Pair, tmp_path: Path) -> list[int]:
    """The process ids of two ranks in the middle of endless steps."""
    return begun(pair, tmp_path)


def test_a_killed_rank_is_named_and_nobody_waits_for_it(pair: Pair, working: list[int]) -> None:
    os.kill(working[1], signal.SIGKILL)
    codes, said = pair.wait()
    assert codes == [1, -signal.SIGKILL]
    assert said[0] == (
        "refused: trainer rank 1 is lost (killed, out of memory, or standing still); go on from the last checkpoint with "
        "--resume\n"
    )


def test_a_rank_that_stands_still_is_named_once_the_others_have_waited(pair: Pair, working: list[int]) -> None:
    os.kill(working[1], signal.SIGSTOP)
    try:
        wait_for_the_end(working[0])
    finally:  # nobody would ever hear of its end
        os.kill(working[1], signal.SIGKILL)
    codes, said = pair.wait()
    assert codes == [1, -signal.SIGKILL]
    assert said[0].startswith("refused: trainer rank 1 is lost")


def test_a_controller_that_does_something_else_is_waited_for_and_one_that_stands_still_is_not(
    pair: Pair, tmp_path: Path
) -> None:
    controller, other = begun(pair, tmp_path, "away")
    time.sleep(6)
    assert not ended(other)
    os.kill(controller, signal.SIGSTOP)
    try:
        wait_for_the_end(other)
    finally:  # nobody would ever hear of its end
        os.kill(controller, signal.SIGKILL)
    codes, said = pair.wait()
    assert codes == [-signal.SIGKILL, 1]
    assert said[1] == "agentdistill: trainer rank 1: rank 0, which ran the experiment, stands still\n"


def test_ranks_that_are_all_told_to_end_take_none_for_lost(pair: Pair, working: list[int]) -> None:
    for process in reversed(working):  # as torchrun does when it is told to
        os.kill(process, signal.SIGTERM)
    assert pair.wait() == ([130, 1], ["stopped\n", ""])


def test_the_store_stays_until_the_others_have_left(pair: Pair, tmp_path: Path) -> None:
    for process in reversed(begun(pair, tmp_path, linger=1.5)):
        os.kill(process, signal.SIGTERM)
    assert pair.wait() == ([130, 1], ["stopped\n", ""])


def test_without_the_controller_the_others_end_too(pair: Pair, working: list[int]) -> None:
    os.kill(working[0], signal.SIGKILL)
    codes, said = pair.wait()
    assert codes == [-signal.SIGKILL, 1]
    assert "agentdistill: trainer rank 1: rank 0, which ran the experiment, is lost\n" in said[1]  # torch complains beside it
