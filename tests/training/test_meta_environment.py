"""What an environment says of itself goes into `meta.json`."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from agentdistill.config import Experiment, parse_experiment
from agentdistill.pool import EnvPool
from agentdistill.training.meta import record_environment, record_session


def experiment() -> Experiment:
    about = {"env": {"id": "lab/X-v0"}, "student": {"model": "tiny:32x2"}}
    return parse_experiment({**about, "engine": {"threads": torch.get_num_threads()}})


def sessions(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((folder / "meta.json").read_text())["sessions"]
    return found


def test_it_is_recorded_with_the_present_session_and_compared_with_none(tmp_path: Path) -> None:
    config = experiment()
    record_session(tmp_path, config, begun=False)
    record_environment(tmp_path, {"python": {"sandbox": {"backend": "jail"}}})
    notes = record_session(tmp_path, config, begun=True)
    record_environment(tmp_path, {"python": {"sandbox": {"backend": "restricted"}}})
    told = [each["environment"] for each in sessions(tmp_path)]
    assert told == [{"python": {"sandbox": {"backend": name}}} for name in ("jail", "restricted")]
    assert notes == []


def test_an_environment_without_anything_to_say_adds_nothing(tmp_path: Path) -> None:
    record_session(tmp_path, experiment(), begun=False)
    record_environment(tmp_path, EnvPool("lab/Mute-v0").run_metadata())
    record_environment(tmp_path, EnvPool("lab/Guess-v0").run_metadata())
    assert "environment" not in sessions(tmp_path)[0]


def test_files_of_the_environments_that_changed_between_sessions_are_named(tmp_path: Path) -> None:
    config = experiment()
    for files, named in (
        ({"a.z8": "1", "b.z8": "1"}, ""),
        ({"a.z8": "1", "b.z8": "1"}, ""),
        ({"a.z8": "2", "c.z8": "1"}, "the environment's files 'a.z8', 'b.z8', 'c.z8'"),
    ):
        record_session(tmp_path, config, begun=(tmp_path / "meta.json").exists())
        notes = record_environment(tmp_path, {"files": files})
        assert [note.partition(": ")[2].partition(": ")[2] for note in notes] == ([named] if named else [])
