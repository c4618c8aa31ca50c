"""Recorded demonstrations: which rows are taken, what the environment is asked about them, and what they are used for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentdistill as ad
from agentdistill.chat import Chat
from agentdistill.demonstrations import demonstrate
from agentdistill.environment import unregister
from agentdistill.errors import UserError
from agentdistill.pool import EnvPool, Workers
from agentdistill.recorded import Recorded, read_records, usable, with_expert

pytestmark = pytest.mark.usefixtures("undrawn")  # nobody looks at the runs' pictures


class Lock(ad.TextEnv):
    """Turn the dial to the digits of a number, one at a time; a wrong one breaks it. `expert` gives it one, for even seeds."""

    def __init__(self, *, expert: bool = False) -> None:
        self.expert = expert

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.seed, self.digits, self.done = int(seed or 0), f"{int(seed or 0) * 7 + 100:03d}", 0
        return f"lock {self.digits}", {"task_id": f"lock-{self.seed}"}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        right = action == self.digits[self.done]
        self.done += right
        won = self.done == len(self.digits)
        return "click" if right else "crack", float(won), won or not right, False, {"success": won}

    def expert_action(self) -> str | None:
        return self.digits[self.done] if self.expert and self.seed % 2 == 0 else None

    def plan(self) -> str:
        return self.digits

    def task_seeds(self, split: str) -> range:
        return {"train": range(8), "valid": range(20, 24), "test": range(30, 34)}[split]


def actions(seed: int) -> list[str]:
    return list(f"{seed * 7 + 100:03d}")


@pytest.fixture(autouse=True)
def _lock() -> Iterator[None]:
    ad.register("lab/Lock-v0", Lock)
    yield
    unregister("lab/Lock-v0")


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def kept(path: Path, max_turns: int = 5) -> Recorded:
    pool = EnvPool("lab/Lock-v0")
    return usable(read_records(path), pool, pool.prototype().unwrapped.task_seeds("train"), max_turns, str(path))


def test_rows_name_their_task_by_seed_or_task_id_and_the_first_that_wins_counts(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"seed": 1, "actions": ["9"]},
        {"seed": 1, "actions": actions(1), "success": True, "observations": ["click"] * 3},
        "",
        {"task_id": "lock-3", "actions": actions(3), "env": "lab/Lock-v0"},
        {"seed": 2, "task_id": "lock-2", "actions": actions(2), "observations": ["lock 114", *["click"] * 3]},
        {"seed": 2, "actions": ["0"], "env": "lab/Other-v0"},
        {"seed": 30, "actions": actions(30)},
        {"task_id": "lock-31", "actions": actions(31)},
    ]
    found = kept(write(tmp_path / "demos.jsonl", *rows))
    assert found.actions == {1: actions(1), 2: actions(2), 3: actions(3)}
    assert found.unusable == ["line 1: it loses"]
    assert found.elsewhere == 3  # another environment's, and two of the test split
    assert "3 tasks have a recorded demonstration; 1 rows cannot be used, the first: line 1: it loses; 3 rows" in str(found)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"actions": actions(1)[:2]}, "its 2 actions do not end the episode"),
        ({"actions": [*actions(1), "look"]}, "the episode is over after 3 of its 4 actions"),
        ({"actions": ["1", "5", "0"]}, "the episode is over after 2 of its 3 actions"),
        ({"actions": actions(1)[:2], "success": True}, "the row says that it wins, and the environment does not"),
        ({"actions": actions(1), "success": False}, "the row says that it does not win"),
        ({"actions": actions(1), "observations": ["click", "clack", "click"]},
         "after action 2 the environment says 'click', and the row 'clack'"),
        ({"actions": actions(1), "observations": ["door", "click", "click", "click"]},
         "at the start the environment says 'lock 107'"),
        ({"actions": actions(1), "task_id": "lock-2"}, "the task of seed 1 is 'lock-1', and the row says 'lock-2'"),
    ],
)  # fmt: skip
def test_what_the_environment_says_otherwise_is_told_by_line_and_refused_where_nothing_is_left(
    tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UserError) as refused:
        kept(write(tmp_path / "demos.jsonl", {"seed": 1, **row}))
    assert f"can be used in 'lab/Lock-v0': line 1: {reason}" in str(refused.value)
    (sentence,) = kept(write(tmp_path / "demos.jsonl", {"seed": 1, **row}, {"seed": 2, "actions": actions(2)})).unusable
    assert reason in sentence


def test_a_demonstration_longer_than_the_turn_limit_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the turn limit is reached after 2 of its 3 actions"):
        kept(write(tmp_path / "demos.jsonl", {"seed": 1, "actions": actions(1)}), max_turns=2)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("{", "line 2: Expecting"),
        ("[]", "line 2: it is no mapping"),
        ({"actions": ["a"]}, "line 2: it names no task, by 'seed' or 'task_id'"),
        ({"seed": "3", "actions": ["a"]}, "line 2: 'seed' is \"'3'\", not a whole number"),
        ({"seed": True, "actions": ["a"]}, "line 2: 'seed'"),
        ({"seed": -1, "actions": ["a"]}, "line 2: 'seed'"),
        ({"task_id": 3, "actions": ["a"]}, "line 2: 'task_id' is '3', not text"),
        ({"seed": 3}, "line 2: 'actions' is not a list of one or more texts"),
        ({"seed": 3, "actions": []}, "line 2: 'actions'"),
        ({"seed": 3, "actions": ["a", 1]}, "line 2: 'actions'"),
        ('{"seed": 3, "actions": ["\\ud800"]}', "line 2: 'actions'"),
        ({"seed": 3, "actions": ["a"], "observations": ["x", "y", "z"]}, "line 2: 'observations'"),
        ({"seed": 3, "actions": ["a"], "success": 1}, "line 2: 'success' is '1', not true or false"),
        ({"seed": 3, "action": ["a"]}, "unknown field 'action'; did you mean 'actions'?"),
    ],
)
def test_a_bad_row_is_refused_by_its_line(tmp_path: Path, row: Any, sentence: str) -> None:
    path = write(tmp_path / "demos.jsonl", {"seed": 1, "actions": ["a"]}, row)
    with pytest.raises(UserError) as refused:
        read_records(path)
    assert sentence in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_file_that_cannot_be_read_or_is_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl' cannot be read: No such file"):
        read_records(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="hold no row"):
        read_records(write(tmp_path / "demos.jsonl", ""))
    (tmp_path / "demos.jsonl").write_bytes(b"\xff")
    with pytest.raises(UserError, match="no UTF-8 text"):
        read_records(tmp_path / "demos.jsonl")


def test_a_record_goes_before_the_expert_and_is_played_without_noise(chat: Chat) -> None:
    pool = EnvPool("lab/Guess-v0")
    pool.reset(0, 3)
    secret = pool.plan(0).removeprefix("say ")  # type: ignore[union-attr]
    shown = demonstrate(
        pool, [3, 4], chat, max_turns=8, max_context=256, noise=0.6, recorded=Recorded({3: ["0", "0", secret]})
    )  # fmt: skip
    assert [turn.action for turn in shown[0].turns] == ["0", "0", secret]
    assert shown[0].success
    assert {turn.author for turn in shown[0].turns} == {"expert"}
    assert "noise" in {turn.author for turn in shown[1].turns}


def test_tasks_with_neither_record_nor_expert_are_left_out(chat: Chat) -> None:
    pool, recorded = EnvPool("lab/Lock-v0", {"expert": True}), Recorded({1: actions(1)})
    shown = demonstrate(pool, range(8), chat, max_turns=5, max_context=256, recorded=recorded)
    assert [t.seed for t in shown] == [0, 1, 2, 4, 6]
    assert all(t.success for t in shown)
    assert with_expert(pool, range(8), recorded) == list(range(8))
    assert with_expert(EnvPool("lab/Lock-v0"), range(8), recorded) == [1]


def test_an_experts_episodes_are_written_and_read_again_with_workers(tmp_path: Path) -> None:
    path = tmp_path / "demos.jsonl"
    assert ad.record_demonstrations(path, "agentdistill/Arithmetic-v0", tasks=3, max_turns=12, workers=1) == 3
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(row["success"] and len(row["observations"]) == len(row["actions"]) + 1 for row in rows)
    for workers in (None, Workers(1)):
        pool = EnvPool("agentdistill/Arithmetic-v0", workers=workers)
        found = usable(read_records(path), pool, [row["seed"] for row in rows], 12)
        assert found.actions == {row["seed"]: row["actions"] for row in rows}
        pool.close()
    with pytest.raises(UserError, match="exists already"):
        ad.record_demonstrations(path, "agentdistill/Arithmetic-v0")
    with pytest.raises(UserError, match="the environment whose expert"):
        ad.record_demonstrations(tmp_path / "other.jsonl")
    with pytest.raises(UserError, match="no episode of the expert of 'lab/Lock-v0' succeeds"):
        ad.record_demonstrations(tmp_path / "other.jsonl", "lab/Lock-v0")


def experiment(demonstrations: str, **env: Any) -> dict[str, Any]:
    return {
        "env": {"id": "lab/Lock-v0", "max_turns": 5, "max_context": 128, "demonstrations": demonstrations, **env},
        "student": {"model": "tiny:32x1", "sft": {"demonstrations": 6, "noisy": 0.5, "steps": 2, "batch": 4}},
        "teacher": {"model": "initial", "privileged": True},
        "schedule": {"kind": "tcod-b2f", "every": 1},
        "sampling": {"max_tokens": 4},
        "train": {"iterations": 1, "tasks": 8, "rollouts": 1},
        "eval": {"tasks": 2},
    }


def test_a_run_imitates_and_replays_records_of_a_world_without_expert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path / "demos.jsonl",
        {"seed": 1, "actions": actions(1)},
        {"seed": 5, "actions": actions(5)},
        {"seed": 6, "actions": ["x"]},
    )
    said: list[str] = []
    run = ad.train(experiment("demos.jsonl"), out=tmp_path / "run", say=said.append)
    assert (
        "recorded demonstrations: 2 tasks have a recorded demonstration; 1 rows cannot be used, the first: line 3: it loses"
        in said
    )
    assert "6 demonstrations, 6 won, 18 turns" in said
    (row,) = [r for r in map(json.loads, (run.folder / "metrics.jsonl").open()) if r["kind"] == "iteration"]
    assert row["without_expert"] == 6
    played = ad.load_run(run.folder).read("iter-000001")
    assert {t.seed: [turn.action for turn in t.turns[: t.prefix_turns]] for t in played if t.prefix_turns} == {
        1: actions(1)[:1], 5: actions(5)[:1],
    }  # fmt: skip
    (name,) = [n for n in json.loads((run.folder / "meta.json").read_text())["sessions"][0] if "env.demonstrations" in n]
    assert name == f"env.demonstrations '{tmp_path / 'demos.jsonl'}'"


def test_the_successes_of_a_run_are_written_the_shortest_of_each_task(tmp_path: Path, chat: Chat) -> None:
    from agentdistill.store import Store

    pool = EnvPool("lab/Guess-v0")
    shown = demonstrate(pool, [3, 4, 4], chat, max_turns=12, max_context=512, noise=0.4, seed=5)
    lost = demonstrate(pool, [6], chat, max_turns=1, max_context=512)
    assert not lost[0].success
    Store(tmp_path / "run" / "store").write("demo", [*shown, *lost])
    assert ad.record_demonstrations(tmp_path / "demos.jsonl", run=tmp_path / "run") == 2
    found = usable(read_records(tmp_path / "demos.jsonl"), pool, range(10), 12)
    assert not found.unusable
    assert len(found.actions[4]) == min(len(t.turns) for t in shown if t.seed == 4)


def test_the_file_is_found_beside_the_experiment(tmp_path: Path) -> None:
    write(tmp_path / "demos.jsonl", {"seed": 1, "actions": ["a"]})
    (tmp_path / "e.yaml").write_text(
        "env: {id: lab/Lock-v0, demonstrations: demos.jsonl}\nstudent: tiny:32x1\n".replace("tiny:32x1", "{model: tiny:32x1}")
    )
    assert ad.experiment(tmp_path / "e.yaml").env.demonstrations == str(tmp_path / "demos.jsonl")


def test_a_run_whose_records_are_all_wrong_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    path = write(tmp_path / "demos.jsonl", {"seed": 1, "actions": ["x"]})
    with pytest.raises(
        UserError, match=r"no recorded demonstration in '.*demos\.jsonl' can be used in 'lab/Lock-v0': line 1: it loses"
    ):
        ad.train(experiment(str(path)), out=tmp_path / "run", say=lambda _: None)
    assert not (tmp_path / "run" / "student").exists()
