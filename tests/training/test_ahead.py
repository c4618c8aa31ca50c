"""Episodes played ahead lag one update, no more; a stopped run goes on to the same numbers; threads end with their run."""

from __future__ import annotations

import copy
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentdistill import environment
from agentdistill.errors import UserError
from agentdistill.policies.base import SamplingParams
from agentdistill.policies.model import CausalLM
from agentdistill.rollout import Rollout
from agentdistill.training.ahead import Ahead
from tests.training.looped import BASE, Even, checked, experiment, loop, near

CHANGES: dict[str, Any] = {
    "engine.overlap": True, "method": "opd-exact", "train.iterations": 6, "train.checkpoint_every": 3, "train.lr": 3e-3,
    "train.keep_rollouts": True, "reference": None,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def world() -> Iterator[None]:
    environment.register("lab/Even-v0", Even)
    yield
    environment.unregister("lab/Even-v0")


def run(folder: Path, lm: CausalLM, stop: Callable[[int], Any] = print, **changes: Any) -> list[dict[str, Any]]:
    student = CausalLM(copy.deepcopy(lm.model), lm.tokenizer, lm.name)
    return loop(folder, student, experiment(**CHANGES | changes), near(lm, "teacher", 5), lm, stop)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, make_lm: Callable[[int], CausalLM]) -> list[dict[str, Any]]:
    return run(tmp_path_factory.mktemp("whole"), make_lm(0))


def test_episodes_lag_one_update_except_after_a_checkpoint(whole: list[dict[str, Any]]) -> None:
    assert [record["staleness"] for record in whole] == [0, 1, 1, 0, 1, 1]


def test_what_is_recorded_as_sampled_is_of_the_weights_that_sampled(whole: list[dict[str, Any]]) -> None:
    for record in whole:
        assert (record["sampler_gap"] > 1e-3) == (record["staleness"] == 1), record["iteration"]


def test_without_overlap_nothing_is_stale_and_nothing_says_so(tmp_path: Path, make_lm: Callable[[int], CausalLM]) -> None:
    records = run(tmp_path, make_lm(0), **{"engine.overlap": False, "train.iterations": 2})
    assert all("staleness" not in record and record["sampler_gap"] < 1e-4 for record in records)


def test_a_stopped_run_goes_on_to_the_same_numbers(
    whole: list[dict[str, Any]], tmp_path: Path, make_lm: Callable[[int], CausalLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: Any) -> Any:
        if arguments[5] == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    from agentdistill.training import loop as module

    real = module._update
    monkeypatch.setattr(module, "_update", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, make_lm(0))
    monkeypatch.setattr(module, "_update", real)
    assert not any(thread.name.startswith("rollout-") for thread in threading.enumerate())
    assert run(tmp_path, make_lm(0)) == whole


def test_what_playing_ahead_raises_ends_the_run(
    tmp_path: Path, make_lm: Callable[[int], CausalLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Rollout.run

    def broken(self: Rollout, tasks: Any, params: Any, batch: str) -> Any:
        if batch == "iter-000002":
            raise UserError("the world is gone")
        return real(self, tasks, params, batch)

    monkeypatch.setattr(Rollout, "run", broken)
    with pytest.raises(UserError, match="the world is gone"):
        run(tmp_path, make_lm(0))


@pytest.mark.parametrize(
    ("engine", "other", "remedy"),
    [
        ({"async_rollouts": True}, {}, r"set env\.workers to the number"),
        ({"overlap": True}, {"student": {"model": "a/b", "lora": {"r": 4}}}, r"drop engine\.overlap or student\.lora"),
        ({"overlap": True}, {"mixed": {"most": 1}}, "drop it or the mixed section"),
    ],
)
def test_what_cannot_be_combined_is_refused(engine: dict[str, Any], other: dict[str, Any], remedy: str) -> None:
    with pytest.raises(UserError, match=remedy):
        checked({**BASE, "engine": engine, "method": "opd-exact", **other})


class Slow:
    """A rollout in the middle of a long turn, after which it looks whether it is to stop."""

    def __init__(self) -> None:
        self.sampler, self.clock, self.stopped, self.over = SimpleNamespace(version=0), None, False, False

    def run(self, *_: Any) -> list[Any]:
        while not self.stopped:
            time.sleep(0.01)
        time.sleep(0.3)
        self.over = True
        return []


def test_after_ctrl_c_whoever_plays_ahead_is_through_before_its_environments_are_closed(
    make_lm: Callable[[int], CausalLM],
) -> None:
    rollout: Any = Slow()
    ahead = Ahead(make_lm(0), rollout, make_lm(1))
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        ahead.episodes(1, lambda _: [], SamplingParams(), 0)
    ahead.close()
    assert rollout.over
