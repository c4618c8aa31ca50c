"""What a run reports on: a stored panel in a split's place, refused where it is not what was meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import agentdistill as ad
from agentdistill.errors import UserError
from tests.conftest import GuessEnv
from tests.training.test_run import BASE, lines, made, run

ALONE: dict[str, Any] = {"eval.every": 0, "train.iterations": 1}


@pytest.fixture
def panel(tmp_path: Path) -> ad.TaskPanel:
    return ad.panel("lab/Guess-v0", out=tmp_path / "p.json", tasks=5)


def test_a_run_reports_on_a_panels_tasks_and_keeps_a_copy(panel: ad.TaskPanel, tmp_path: Path) -> None:
    folder, said = run(tmp_path / "r", **ALONE, **{"eval.panel": str(tmp_path / "p.json"), "eval.tasks": 5})
    for label in ("teacher", "before", "after"):
        assert [t.seed for t in ad.load_run(folder).read(f"eval-{label}")] == panel.seeds
    assert ad.load_panel(folder / "panel.json") == panel
    assert ad.load_eval(f"{folder}:eval-after").settings["panel"] == {"name": "p", "sha256": panel.sha256}
    assert any("on panel p" in line for line in said)
    assert {line["n"] for line in lines(folder, "eval")} == {5}


def test_a_relative_panel_lies_beside_the_experiment(panel: ad.TaskPanel, tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(json.dumps({**BASE, "eval": {"panel": "p.json"}}))
    assert ad.experiment(path).eval.panel == str(tmp_path / "p.json")
    assert "test: " in ad.dry_run(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"eval.split": "valid"}, "split is 'valid', and panel 'p' has 'test'"),
        ({"eval.tasks": 6}, "tasks is 6, and panel 'p' has 5"),
        ({"env.options": {"size": 4}}, "options is {'size': 4}, and panel 'p' has {}"),
        ({"eval.panel": "nowhere.json"}, "there is no panel 'nowhere.json'"),
    ],
)
def test_a_panel_of_other_tasks_is_refused_before_anything_is_made(
    panel: ad.TaskPanel, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        run(tmp_path / "r", **{"eval.tasks": 5, "eval.panel": str(tmp_path / "p.json"), **changes})
    assert said in str(error.value)
    assert not (tmp_path / "r" / "store").exists()


def test_a_panel_of_trained_tasks_is_refused(panel: ad.TaskPanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = GuessEnv.task_seeds
    monkeypatch.setattr(GuessEnv, "task_seeds", lambda self, split: seeds(self, "test" if split == "train" else split))
    with pytest.raises(UserError, match="splits 'train' and 'test' of 'lab/Guess-v0' share 5 tasks"):
        run(tmp_path / "r", **{"eval.tasks": 5, "eval.panel": str(tmp_path / "p.json")})


def test_an_environment_whose_tasks_changed_is_refused_before_models_are_made(
    panel: ad.TaskPanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = GuessEnv.reset
    monkeypatch.setattr(GuessEnv, "reset", lambda self, **given: ("other", told(self, **given)[1]))
    with pytest.raises(UserError, match="5 of 5 tasks of panel 'p' are not what they were"):
        run(tmp_path / "r", **{"eval.tasks": 5, "eval.panel": str(tmp_path / "p.json")})
    assert not (tmp_path / "r" / "student").exists()


def test_a_run_that_began_with_another_panel_is_not_resumed(panel: ad.TaskPanel, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    folder, _ = run(tmp_path / "r", **ALONE, **{"eval.panel": str(path), "eval.tasks": 5})
    started = tmp_path / "again"
    started.mkdir()
    (started / "panel.json").write_bytes((folder / "panel.json").read_bytes())
    path.unlink()
    ad.panel("lab/Guess-v0", out=path, tasks=4)
    with pytest.raises(UserError, match="the run began with panel 'p'"):
        run(started, **ALONE, **made(folder), **{"eval.panel": str(path), "eval.tasks": 4})
