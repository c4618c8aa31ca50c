"""Stored episodes repeat themselves to the bit, and whatever does not is told: where, what, and how."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentdistill import api, cli
from agentdistill.errors import UserError
from agentdistill.replay import RESET, Difference, replay, require_exact
from agentdistill.store import Store
from agentdistill.store_scores import Identity
from agentdistill.training.meta import versions
from agentdistill.trajectory import Scores, StopReason, ToolCall, Trajectory, Turn

PLAYED = ["8", "x", "12", "3"]


def record(seed: int = 3, **options: Any) -> Trajectory:
    """An episode of the guessing game, played without any model."""
    from agentdistill.pool import EnvPool
    from agentdistill.view import opening

    pool = EnvPool("lab/Guess-v0", options)
    first = pool.reset(0, seed)
    out = Trajectory(f"play/{seed}", "lab/Guess-v0", seed, first.task_id, [], [], StopReason.MAX_TURNS, env_options=options)
    out.messages = opening(pool.system_prompt(0), first.observation)
    for action in PLAYED:
        answer = pool.step(0, action)
        out.turns.append(Turn([1], [2], action, answer.observation, reward=answer.reward, terminated=answer.terminated))
        out.success = bool(answer.success)
        if answer.terminated:
            break
    return out


def test_what_was_played_repeats_itself():
    report = replay([record(seed) for seed in range(20)])
    assert report.exact
    assert report.episodes == 20
    require_exact(report)


def test_workers_find_the_same():
    from agentdistill.pool import Workers

    stored = [dataclasses.replace(record(seed), env_id="agentdistill/Arithmetic-v0", env_options={}) for seed in range(3)]
    here = replay(stored)
    there = replay(stored, workers=Workers(2))
    assert here.differences == there.differences
    assert len(here.differences) == 3


CHANGES: dict[str, tuple[Callable[[Trajectory], None], int]] = {
    "observation": (lambda t: setattr(t.turns[2], "observation", t.turns[2].observation + "!"), 2),
    "reward": (lambda t: setattr(t.turns[0], "reward", 5e-324), 0),
    "terminated": (lambda t: setattr(t.turns[1], "terminated", True), 1),
    "truncated": (lambda t: setattr(t.turns[1], "truncated", True), 1),
    "tool_calls": (lambda t: setattr(t.turns[1], "tool_calls", [ToolCall("f", {}, "x", True)]), 1),
    "task_id": (lambda t: setattr(t, "task_id", "guess-4"), RESET),
    "messages": (lambda t: t.messages[1].update(content="0 to 14"), RESET),
    "success": (lambda t: setattr(t, "success", not t.success), 3),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_difference_is_told_at_the_turn_where_it_first_appears(what: str):
    stored = record()
    change, turn = CHANGES[what]
    change(stored)
    report = replay([record(1), stored])
    (difference,) = report.differences
    assert (difference.trajectory, difference.turn, difference.what) == (stored.id, turn, what)
    assert difference.stored != difference.replayed
    with pytest.raises(UserError, match="1 of 2 episodes do not repeat themselves"):
        require_exact(report)


def test_the_difference_is_shown_line_by_line():
    stored = record()
    stored.turns[1].observation = "first line\nlower"
    (difference,) = replay([stored]).differences
    text = str(difference)
    assert text.startswith("play/3 (task guess-3, seed 3) differs at turn 2, in its observation:\n--- stored\n+++ replayed")
    assert "-first line" in text


def test_another_action_is_noticed_by_what_follows_it():
    stored = record()
    stored.turns[0].action = "0"
    assert [d.turn for d in replay([stored]).differences] in ([0], [1])


def test_an_environment_that_fails_now_is_told_and_costs_its_episode_only():
    broken = record(2)
    broken.env_options = {"fault": "raise", "fault_at": 2, "fault_seeds": [2]}
    report = replay([broken, record(3)])
    (difference,) = report.differences
    assert (difference.what, difference.turn) == ("fault", 1)
    assert "broken pipe to the game" in difference.replayed
    assert report.episodes == 2


def test_an_episode_that_its_environment_ended_by_failing_is_compared_up_to_there():
    stored = record(2)
    stored.turns, stored.stop_reason, stored.success = stored.turns[:1], StopReason.ENV_ERROR, False
    stored.error = "environment 'lab/Guess-v0' failed in step('x'): ValueError: broken pipe to the game"
    assert replay([stored]).exact


def test_environments_of_other_options_are_told_apart():
    assert replay([record(1), record(1, size=4), record(2, size=4), record(2)]).exact


# A run's folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name, seeds in {"iter-000001": range(4), "iter-000002": range(4, 8)}.items():
        Store(tmp_path / "run" / "store").write(name, [record(seed) for seed in seeds])
    return tmp_path / "run"


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_a_whole_run_is_replayed_and_nothing_is_touched(run: Path):
    before, said = snapshot(run), []
    report = api.replay(run, say=said.append)
    assert report.exact
    assert report.episodes == 8
    assert said == [f"iter-00000{n}: 4 episodes replayed, 0 differ" for n in (1, 2)]
    assert snapshot(run) == before


def test_one_batch_can_be_chosen(run: Path):
    assert api.replay(run, "iter-000002", say=lambda _: None).episodes == 4
    with pytest.raises(UserError, match="iter-000002"):
        api.replay(run, "iter-000003")


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[200] ^= 1
    file.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped": (flip, "iter-000001.parquet is not as it was written"),
    "deleted": (Path.unlink, "iter-000001.parquet is missing"),
    "truncated": (lambda file: file.write_bytes(file.read_bytes()[:300]), "iter-000001.parquet is not as it was written"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_store_ends_in_one_sentence_and_the_rest_is_replayed(damage: str, run: Path, capsys):
    harm, sentence = DAMAGE[damage]
    harm(run / "store" / "iter-000001.parquet")
    before = snapshot(run)
    assert cli.main(["replay", str(run)]) == 1
    out, err = capsys.readouterr()
    assert "iter-000002: 4 episodes replayed, 0 differ" in out
    assert sentence in err
    assert "Traceback" not in err
    assert snapshot(run) == before


def test_another_version_of_the_environment_is_refused_by_name(run: Path, capsys):
    Store(run / "store").write("iter-000002", [dataclasses.replace(record(), env_id="lab/Guess-v1")])
    assert cli.main(["replay", str(run)]) == 1
    err = capsys.readouterr().err
    assert "lab/Guess-v1" in err
    assert "lab/Guess-v0" in err  # the nearest there is
    assert "Traceback" not in err


def test_differences_end_in_a_count(run: Path, capsys):
    changed = record(1)
    changed.turns[0].observation = "warmer"
    Store(run / "store").write("iter-000002", [changed, record(2)])
    assert cli.main(["replay", str(run)]) == 1
    out, err = capsys.readouterr()
    assert "-warmer" in out
    assert "1 of 6 episodes do not repeat themselves" in err


def test_the_module_that_registers_the_environment_comes_from_the_run(tmp_path: Path):
    module = tmp_path / "replayed_game.py"
    module.write_text(
        "import agentdistill as ad\n\n@ad.register('lab/Replayed-v0')\nclass Game(ad.TextEnv):\n"
        "    def reset(self, *, seed=None, options=None):\n        return 'go', {'task_id': 'only'}\n"
        "    def step(self, action):\n        return action, 1.0, True, False, {'success': True}\n"
    )
    turn = Turn([1], [2], "hello", "hello", reward=1.0, terminated=True)
    told = [{"role": "user", "content": "go"}]
    stored = Trajectory("a/0", "lab/Replayed-v0", 0, "only", told, [turn], StopReason.TERMINATED, success=True)
    Store(tmp_path / "run" / "store").write("rollout", [stored])
    (tmp_path / "run" / "experiment.yaml").write_text(f"env: {{id: lab/Replayed-v0, module: {module}}}\n")
    assert api.replay(tmp_path / "run", say=lambda _: None).exact


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="no run folder"):
        api.replay(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no run"):
        api.replay(tmp_path / "empty")
    shutil.rmtree(tmp_path / "empty")


@pytest.mark.parametrize(
    ("stored", "replayed"), [("a\n", "a"), ("a\r\nb", "a\nb"), ("", "\n"), ("x" * 300 + "y", "x" * 300 + "z")]
)
def test_no_difference_is_shown_as_none(stored: str, replayed: str):
    said = str(Difference("a/0", "t", 0, 1, "observation", stored, replayed)).splitlines()
    assert [line[0] for line in said[3:] if line[0] in "-+"]
    assert max(map(len, said)) < 130


@pytest.mark.parametrize(("stored", "replayed"), [("\x1b[31mred", "\x1b[32mred"), ("\x00", "␀"), ("a\u202eb", "ab")])
def test_what_an_environment_wrote_cannot_speak_to_the_terminal(stored: str, replayed: str):
    said = str(Difference("a/0", "\x1b]0;title\x07", 0, 1, "observation", stored, replayed))
    assert said.replace("\n", "").replace("␀", "0").isprintable()
    old, new = ([line[1:] for line in said.splitlines()[3:] if line[0] == sign] for sign in "-+")
    assert old != new


def test_tool_calls_are_shown_a_line_each():
    stored = record()
    stored.turns[1].tool_calls = [ToolCall("add", {"a": 1}, "2", True), ToolCall("sub", {}, "no such tool", False)]
    (difference,) = replay([stored]).differences
    assert str(difference).splitlines()[-3:-1] == ["-add({'a': 1}) -> 2", "-sub({}) -> refused: no such tool"]


def test_what_has_changed_since_the_run_is_told_beside_its_differences(run: Path):
    changed = record(1)
    changed.turns[0].observation = "warmer"
    Store(run / "store").write("iter-000002", [changed])
    module = run / "game.py"
    module.write_text("")
    session = {"python": "3.0", "gymnasium": versions()["gymnasium"], f"env.module '{module}'": "0" * 12}
    (run / "meta.json").write_text(json.dumps({"sessions": [session]}))
    said: list[str] = []
    api.replay(run, say=said.append)
    told = f"python 3.0 has become {versions()['python']}; env.module '{module}' has changed"
    assert said[-1] == f"note: since these episodes were played, {told}"


def test_files_of_scores_are_looked_at_too(run: Path):
    store = Store(run / "store")
    scores = Scores(np.zeros(record(0).n_action_tokens))
    store.scores("s").claim(Identity("m", "1" * 64, "2" * 64))
    for name, sha256 in {"iter-000001": store.digest("iter-000001"), "iter-000002": "0" * 64}.items():
        store.scores("s").write(name, sha256, 0, [("play/0", scores)])
    store.scores("s").write("gone", "3" * 64, 0, [("play/0", scores)])
    (problem,) = api.replay(run, say=lambda _: None).problems
    assert "iter-000002@00000000.parquet holds scores of a file that is not the batch's any more" in problem
    store.scores("s").paths("iter-000001")[0].write_bytes(b"PAR1")
    assert len(api.replay(run, say=lambda _: None).problems) == 2
    assert api.replay(run, "iter-000001", say=lambda _: None).exact
