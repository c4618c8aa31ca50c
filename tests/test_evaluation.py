"""Evaluations are read again as they were, from their own file or from the trajectories, and shown without playing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import agentdistill as ad
from agentdistill import cli
from agentdistill.errors import UserError
from agentdistill.evaluation import Evaluation, differences
from agentdistill.intervals import average, clustered
from agentdistill.store import Store
from agentdistill.trajectory import Trajectory
from tests.test_compare import played


def episodes() -> list[Trajectory]:
    rng = np.random.default_rng(0)
    return played({seed: rng.choice([0.0, 0.5, 1.0], 3).tolist() for seed in range(12)}, ("cool", "heat"))


def test_success_and_reward_are_of_tasks_and_told_apart_by_type() -> None:
    items = episodes()
    found = Evaluation.of("x", items)
    won = [[t.success for t in items if t.seed == seed] for seed in range(12)]
    rewards = [[t.reward for t in items if t.seed == seed] for seed in range(12)]
    assert found.result.success == clustered(won)
    assert found.result.reward == average(rewards)
    assert (found.result.success.n, found.result.success.tasks) == (36, 12)
    assert found.by_type["heat"].success == clustered(won[1::2])
    assert found.by_type["heat"].reward == average(rewards[1::2])
    assert Evaluation.of("x", played(np.zeros(4))).by_type == {}


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    made = Evaluation.of(str(tmp_path), episodes(), {"model": "m", "temperature": 0.7, "panel": {"name": "p", "sha256": "ab"}})
    (tmp_path / "eval.json").write_text(json.dumps(made.as_dict(), allow_nan=False))
    assert ad.load_eval(tmp_path) == made


def test_a_run_of_several_evaluations_gives_each_from_its_trajectories(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    store.write("eval-before", played(np.zeros(4)))
    store.write("eval-after", played(np.ones(4)))
    about = {"env": {"id": "lab/Guess-v0", "max_turns": 4}, "eval": {"split": "test", "temperature": 0.5}}
    (tmp_path / "experiment.yaml").write_text(json.dumps(about))
    assert ad.load_eval(tmp_path).result.success.success == 1
    before = ad.load_eval(f"{tmp_path}:eval-before")
    assert (before.result.success.success, before.settings["temperature"], before.settings["env"]) == (0, 0.5, "lab/Guess-v0")
    assert cli.main(["show", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"{tmp_path}:eval-after\n  env lab/Guess-v0, split test, temperature 0.5, max_turns 4\n  success 100.0 %" in shown
    assert f"{tmp_path}:eval-before" in shown
    assert "episodes ended by: terminated 4" in shown
    assert cli.main(["show", f"{tmp_path}:eval-before"]) == 0
    assert "eval-after" not in capsys.readouterr().out


def test_a_record_from_before_rewards_were_kept_is_completed_from_the_store(tmp_path: Path) -> None:
    Store(tmp_path / "store").write("eval", episodes())
    old = {"model": "m", "success": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    (tmp_path / "eval.json").write_text(json.dumps(old))
    found = ad.load_eval(tmp_path)
    assert found.result.reward is not None
    assert found.result.success.n == 36


def test_a_damaged_record_is_told_and_the_store_still_serves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store(tmp_path / "store").write("eval", episodes())
    for text in ("{", "[]", '{"success": 1}', '{"success": 1, "low": 0, "high": 1, "n": 3, "by_type": 5}'):
        (tmp_path / "eval.json").write_text(text)
        with pytest.raises(UserError, match=r"eval\.json' is damaged: it is no evaluation"):
            ad.load_eval(tmp_path)
        assert cli.main(["show", str(tmp_path)]) == 1
        assert "is damaged" in capsys.readouterr().err
    (tmp_path / "eval.json").unlink()
    assert ad.load_eval(f"{tmp_path}:eval").result.success.n == 36


@pytest.mark.parametrize("name", ["none", "none:eval", "."])
def test_what_is_no_evaluation_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for verb in (ad.load_eval, ad.show):
        with pytest.raises(UserError):
            verb(name)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"panel": 1}'])
def test_a_file_that_is_no_result_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError):
        ad.show(tmp_path / "x.json")


def test_an_imported_episode_without_a_reward_leaves_success(tmp_path: Path) -> None:
    items = played(np.array([1.0, 0.0, 1.0]))
    items[1].turns[0].reward = float("nan")
    found = Evaluation.of("x", items)
    assert (found.result.success.success, found.result.reward) == (pytest.approx(2 / 3), None)


def test_settings_that_both_sides_know_and_do_not_share_are_named() -> None:
    first, second = (
        Evaluation("x", Evaluation.of("x", episodes()).result, {}, {}, settings)
        for settings in (
            {"temperature": 0.0, "max_turns": 4, "panel": {"name": "a", "sha256": "1"}},
            {"temperature": 0.7, "max_turns": 4, "view": "window", "panel": {"name": "b", "sha256": "2"}},
        )
    )
    assert differences(first, second) == [
        "temperature was 0 for the first and 0.7 for the second, so the difference may be due to that too",
        "panel was a for the first and b for the second, so the difference may be due to that too",
    ]


def test_an_evaluation_whose_store_was_lost_is_still_read(tmp_path: Path) -> None:
    Store(tmp_path / "store").write("eval", episodes())
    made = Evaluation.of(str(tmp_path), episodes(), {"model": "m"})
    (tmp_path / "eval.json").write_text(json.dumps(made.as_dict()))
    shutil.rmtree(tmp_path / "store")
    assert ad.load_eval(tmp_path) == made
