"""The verbs as functions: what they play, what they write, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentdistill as ad
from agentdistill import UserError, api, environment
from agentdistill.intervals import clustered

ENV = "lab/Guess-v0"
SMALL: dict[str, Any] = {"max_tokens": 4, "max_turns": 2, "max_context": 128, "say": lambda line: None}


def files(folder: Path) -> dict[str, bytes]:
    """Every file's content, apart from the lock."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_an_evaluation_writes_its_rate_and_its_episodes(model: str, tmp_path: Path) -> None:
    found = ad.evaluate_run(model, ENV, out=tmp_path / "o", tasks=6, samples=3, temperature=1.0, **SMALL)
    record, rate = json.loads((tmp_path / "o" / "eval.json").read_text()), found.result.success
    about = {"model": model, "env": ENV, "split": "test", "temperature": 1.0, "samples": 3, "view": "chat"}
    limits = {name: SMALL[name] for name in ("max_tokens", "max_turns", "max_context")}
    assert found.result.reward is not None
    numbers = {**rate.as_dict(), "reward": found.result.reward.as_dict(), "stop_reasons": {"max_turns": 18}}
    assert record == {**about, **limits, **numbers}
    played = list(ad.load_run(tmp_path / "o").trajectories("eval"))
    won = [t.success for t in played]
    assert (rate.n, rate.tasks, len({t.seed for t in played})) == (18, 6, 6)
    assert rate == clustered([won[i : i + 3] for i in range(0, 18, 3)])
    assert ad.load_eval(tmp_path / "o") == found


def test_episodes_can_be_played_in_a_window(model: str, tmp_path: Path) -> None:
    view = {"kind": "window", "pairs": 0}
    for trajectory in ad.rollout(model, ENV, out=tmp_path / "o", tasks=2, view=view, **SMALL | {"max_context": 512}):
        assert [turn.fresh for turn in trajectory.turns] == [True, True]


def test_greedy_samples_are_refused_before_anything_is_written(model: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 samples of a task at temperature 0 are one and the same episode"):
        ad.evaluate_run(model, ENV, out=tmp_path / "o", samples=2, **SMALL)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tasks": 0}, "arguments: tasks must be at least 1, not 0"),
        ({"tasks": -3}, "tasks must be at least 1, not -3"),
        ({"tasks": 2.5}, "tasks must be a whole number, not 2.5"),
        ({"temperature": -1}, "temperature must be at least 0, not -1"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, not 0"),
        ({"max_turns": 0}, "max_turns must be at least 1, not 0"),
        ({"max_context": 1}, "max_context must be at least 8, not 1"),
        ({"seed": "x"}, "seed must be a whole number, not 'x'"),
        ({"options": {"size": object}}, "options must hold text, finite numbers"),
        ({"options": {"colour": "red"}}, "did not accept"),
        ({"split": "trian"}, "did you mean 'train'?"),
        ({"tasks": 501}, "has 500 tasks, fewer than the 501 asked for"),
        ({"out": ""}, "out is empty"),
        ({"module": "gone.py"}, "env.module 'gone.py' does not exist"),
        ({"env": "lab/Gues-v0"}, "did you mean 'lab/Guess-v0'?"),
        ({"model": "./nowhere"}, "there is no model folder './nowhere'"),
    ],
)
def test_arguments_that_cannot_be_are_refused_and_leave_no_folder(
    change: dict[str, Any], says: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for verb in (ad.rollout, ad.evaluate_run):
        with pytest.raises(UserError) as error:
            verb(**{"model": model, "env": ENV, "out": "o", **SMALL, **change})
        assert says in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("verb", [ad.rollout, ad.evaluate_run], ids=["rollout", "eval"])
def test_an_earlier_result_is_never_overwritten(verb: Callable[..., Any], model: str, tmp_path: Path) -> None:
    verb(model, ENV, out=tmp_path / "o", tasks=2, **SMALL)
    before = files(tmp_path / "o")
    for change in ({"tasks": 2}, {"tasks": 3}, {"tasks": 2, "seed": 1}):
        with pytest.raises(UserError, match=r"already holds a result \(.*\); choose another --out"):
            verb(model, ENV, out=tmp_path / "o", **{**SMALL, **change})
    assert files(tmp_path / "o") == before


def test_a_rollout_and_an_evaluation_of_the_same_arguments_share_a_folder(model: str, tmp_path: Path) -> None:
    same = {"out": tmp_path / "o", "tasks": 2, "temperature": 1.0, **SMALL}
    ad.rollout(model, ENV, **same)
    ad.evaluate_run(model, ENV, **same)
    assert ad.load_run(tmp_path / "o").batches() == ["eval", "rollout"]
    with pytest.raises(UserError, match=r"eval\.tasks was 2, is 3"):
        ad.rollout(model, ENV, **{**same, "out": _without(tmp_path / "o", "rollout"), "tasks": 3})


def _without(folder: Path, batch: str) -> Path:
    (folder / "store" / f"{batch}.parquet").unlink()
    return folder


def test_a_mistaken_environment_does_not_take_the_folder(model: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        ad.rollout(model, "lab/Gues-v0", out=tmp_path / "o", tasks=2, **SMALL)
    assert len(ad.rollout(model, ENV, out=tmp_path / "o", tasks=2, **SMALL)) == 2


def test_a_users_module_brings_its_environment(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = "import agentdistill as ad\nfrom tests.conftest import GuessEnv\nad.register('lab/{name}-v0', GuessEnv)\n"
    for name in ("First", "Second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "games.py").write_text(source.format(name=name))
    try:
        for name in ("First", "Second"):  # two files of one name are two modules
            played = ad.rollout(model, f"lab/{name}-v0", out=name + "-o", module=f"{name}/games.py", tasks=1, **SMALL)
            assert played[0].env_id == f"lab/{name}-v0"
        (tmp_path / "importable_games.py").write_text(source.format(name="Third"))
        monkeypatch.syspath_prepend(tmp_path)
        assert "lab/Third-v0" in ad.envs(module="importable_games")
        with pytest.raises(UserError, match=r"env\.module 'no_such_module' cannot be imported"):
            ad.envs(module="no_such_module")
    finally:
        for name in ("First", "Second", "Third"):
            environment.unregister(f"lab/{name}-v0")


def test_a_run_that_is_not_there_has_no_trajectories_to_give(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run folder"):
        ad.load_run(tmp_path / "missing")
    with pytest.raises(UserError, match="holds no run"):
        ad.load_run(tmp_path)
    (tmp_path / "experiment.yaml").write_text("")  # a run that has not written a batch yet
    assert ad.load_run(tmp_path).batches() == []


def test_every_verb_can_be_called_also_after_its_module_was_imported(tmp_path: Path) -> None:
    import agentdistill.report

    for verb in ("train", "sft", "rollout", "evaluate_run", "envs", "report", "dry_run", "experiment", "load_run"):
        assert callable(getattr(ad, verb))
    with pytest.raises(UserError, match="no run to report on"):
        ad.report([])
    assert agentdistill.report.report is not None


def test_a_dry_run_refuses_reported_tasks_that_are_trained_on_and_notes_bounds_without_effect() -> None:
    class Overlap(environment.TextEnv):
        def task_seeds(self, split: str) -> list[int]:
            return {"train": [1, 2, 3], "test": [3, 4]}[split]

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
            return "go", {}

    about = {
        "env": {"id": "lab/Overlap-v0", "timeout": 5}, "student": {"model": "tiny:32x1", "sft": {}}, "method": "grpo",
        "train": {"rollouts": 2}, "eval": {"tasks": 1},
    }  # fmt: skip
    environment.register("lab/Overlap-v0", Overlap)
    try:
        with pytest.raises(UserError, match=r"splits 'train' and 'test' of 'lab/Overlap-v0' share 1 tasks"):
            ad.dry_run(about)
        assert "env.timeout can bound worker processes only" in ad.dry_run(about, **{"eval.split": "train"})
    finally:
        environment.unregister("lab/Overlap-v0")


def test_every_verb_of_the_package_is_one_of_the_api_and_the_other_way_round() -> None:
    assert {*ad._VERBS, "EnvInfo"} == set(api.__all__)
