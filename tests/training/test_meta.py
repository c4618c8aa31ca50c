"""Versions, threads and user modules."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from agentdistill.config import Experiment, override, parse_experiment
from agentdistill.training.meta import changed_since, record_session, versions


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def experiment(changes: dict[str, object] | None = None) -> Experiment:
    return parse_experiment(override({"env": {"id": "lab/X-v0"}, "student": {"model": "tiny:32x2"}}, changes or {}))


def test_every_session_is_on_record_with_its_versions(tmp_path: Path) -> None:
    assert record_session(tmp_path, experiment(), begun=False) == []
    assert record_session(tmp_path, experiment(), begun=True) == []
    sessions = json.loads((tmp_path / "meta.json").read_text())["sessions"]
    assert [{k: v for k, v in s.items() if k != "started"} for s in sessions] == [versions()] * 2


def test_another_version_is_one_note_that_names_both(tmp_path: Path) -> None:
    record_session(tmp_path, experiment(), begun=False)
    path = tmp_path / "meta.json"
    path.write_text(path.read_text().replace(f'"torch": "{versions()["torch"]}"', '"torch": "1.0"'))
    for _ in range(2):  # and again in the next session, since the mixture remains
        (note,) = record_session(tmp_path, experiment(), begun=True)
        assert f"torch was 1.0, is {versions()['torch']}" in note
        assert "transformers" not in note


def test_the_first_sessions_threads_come_back(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    record_session(tmp_path, experiment(), begun=False)
    torch.set_num_threads(2)
    (note,) = record_session(tmp_path, experiment(), begun=True)
    assert "1 threads, as when the run began (here it would be 2)" in note
    assert torch.get_num_threads() == 1


def test_threads_of_the_experiment_come_first_and_are_no_surprise(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    for begun in (False, True):
        assert record_session(tmp_path, experiment({"engine.threads": 2}), begun=begun) == []
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"sessions": 3}', '{"sessions": [3]}'])
def test_a_lost_meta_file_costs_the_comparison_not_the_run(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "meta.json").write_text(content)
    (note,) = record_session(tmp_path, experiment(), begun=True)
    assert "meta.json' is missing or damaged" in note
    assert len(json.loads((tmp_path / "meta.json").read_text())["sessions"]) == 1


def test_a_file_or_model_of_the_users_that_changed_between_sessions_is_named(tmp_path: Path) -> None:
    module, tasks, model = tmp_path / "games.py", tmp_path / "tasks.jsonl", tmp_path / "model"
    model.mkdir()
    weights = model / "model.safetensors"
    for file in (module, tasks, model / "config.json"):
        file.write_text("1")
    weights.write_bytes(bytes(2 << 20))
    names = {"env.module": str(module), "env.options": {"tasks": str(tasks), "level": 3}, "teacher.model": str(model)}
    config = experiment(names)
    run = tmp_path / "run"
    run.mkdir()
    record_session(run, config, begun=False)
    assert record_session(run, config, begun=True) == []
    module.write_text("2")
    (note,) = record_session(run, config, begun=True)
    assert f"env.module '{module}' was" in note
    assert "env.options.tasks" not in note
    tasks.write_text("2")
    os.utime(weights, ns=(1, 1))  # a large file is not read
    (note,) = record_session(run, config, begun=True)
    assert f"env.options.tasks '{tasks}' was" in note
    assert f"teacher.model '{model}' was" in note


def test_options_and_models_that_are_no_files_are_not_looked_at(tmp_path: Path) -> None:
    config = experiment({"env.options": {"a": "cooking", "b": "x\0", "c": "x" * 5000, "d": str(tmp_path)}})
    assert record_session(tmp_path, config, begun=False) == []
    (session,) = json.loads((tmp_path / "meta.json").read_text())["sessions"]
    assert session.keys() - {"started"} == versions().keys()


def test_packages_that_the_environment_needs_are_on_record_and_another_version_is_named(tmp_path: Path) -> None:
    played = experiment({"env.id": "agentdistill/ALFWorld-v0"})
    assert record_session(tmp_path, played, begun=False) == []
    path = tmp_path / "meta.json"
    session = json.loads(path.read_text())["sessions"][0]
    own = f"alfworld {importlib.metadata.version('alfworld')}"
    assert session["package of the environment 'alfworld'"] == own
    assert not any("alfworld" in name for name in versions())
    path.write_text(path.read_text().replace(own, "alfworld 0.1"))
    assert changed_since(tmp_path) == [f"alfworld 0.1 has become {own}"]
    (note,) = record_session(tmp_path, played, begun=True)
    assert f"package of the environment 'alfworld' was alfworld 0.1, is {own}" in note
