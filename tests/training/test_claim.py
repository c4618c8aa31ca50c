"""Whose a run folder is, and what of it a resumed run refuses, on whole runs of a small environment."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentdistill import api, config
from agentdistill.errors import UserError
from agentdistill.training.claim import _first_difference
from tests.training.test_run import BASE, SFT

SHORT: dict[str, Any] = {"schedule": {"kind": "adaptive"}, "eval.every": 0, "train.checkpoint_every": 2, "train.iterations": 3}


class Killed(Exception):
    """Ends a run where it stands."""


def train(out: Path, resume: bool = True, until: str = "report ", **changes: Any) -> list[str]:
    """What a run says until it says a certain thing; then it is killed."""
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith(until):
            raise Killed

    with contextlib.suppress(Killed):
        api.train(BASE, out=out, resume=resume, say=say, **{**SHORT, **changes})
    return said


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in its last iteration, after the checkpoint of the second."""
    out = tmp_path_factory.mktemp("claim") / "run"
    train(out, resume=False, until="iteration 3/3")
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["train-000002"]
    return out


@pytest.fixture
def cut(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "cut")


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_run_goes_on_where_nothing_was_touched(cut: Path) -> None:
    assert not [line for line in train(cut, until="iteration 3/3") if line.startswith("note")]
    assert len(json.loads((cut / "meta.json").read_text())["sessions"]) == 2


def test_without_experiment_yaml_the_folder_stays_its_experiments(cut: Path) -> None:
    text = (cut / "experiment.yaml").read_text()
    (cut / "experiment.yaml").unlink()
    before = files(cut)
    with pytest.raises(UserError, match=r"another experiment's results, and its experiment\.yaml is missing"):
        train(cut, **{"train.lr": 0.5})
    with pytest.raises(UserError, match="already holds a run"):
        train(cut, resume=False)
    assert files(cut) == before
    train(cut, until="iteration 3/3")  # the same experiment may go on, and writes down again what it is
    assert (cut / "experiment.yaml").read_text() == text


def test_an_experiment_yaml_that_was_edited_does_not_make_the_results_anothers(cut: Path) -> None:
    path = cut / "experiment.yaml"
    path.write_text(path.read_text().replace("lr: 0.001", "lr: 0.5"))
    before = files(cut)
    for changes in ({}, {"train.lr": 0.5}):
        with pytest.raises(UserError, match=r"experiment\.yaml' was changed after the run had begun"):
            train(cut, **changes)
    assert files(cut) == before


def test_results_without_progress_are_not_started_over(cut: Path) -> None:
    (cut / "progress.json").unlink()
    before = files(cut)
    with pytest.raises(UserError, match=r"holds results, and its progress\.json is missing"):
        train(cut)
    assert files(cut) == before


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    ["checkpoints/train-000002/weights.safetensors", "checkpoints/train-000002/optimizer.pt", "student/model.safetensors",
     "teacher/config.json", "tokenizer/tokenizer.json", "evals/before.json"],
)  # fmt: skip
@pytest.mark.parametrize(("damage", "says"), [(flip, "is damaged"), (Path.unlink, "is missing")])
def test_a_file_that_is_not_as_it_was_written_is_refused_by_name(
    cut: Path, name: str, damage: Callable[[Path], None], says: str
) -> None:
    damage(cut / name)
    before = files(cut)
    with pytest.raises(UserError, match=says) as error:
        train(cut)
    assert str(cut / name) in str(error.value)
    assert "\n" not in str(error.value)
    assert files(cut) == before


def test_a_bit_of_the_final_model_is_missed_too(cut: Path) -> None:
    train(cut, until="after: success")
    flip(cut / "final" / "model.safetensors")
    with pytest.raises(UserError, match=r"final/model\.safetensors' is damaged"):
        train(cut)


def test_a_deleted_stage_folder_is_named_as_the_runs_own(cut: Path) -> None:
    shutil.rmtree(cut / "teacher")
    with pytest.raises(UserError, match=r"the run's own folder '.*/teacher', which its stage 'sft-teacher' wrote, is missing"):
        train(cut)


@pytest.mark.parametrize("keep", [None, 0, 300])
def test_metrics_that_are_missing_or_cut_short_are_refused(cut: Path, keep: int | None) -> None:
    path = cut / "metrics.jsonl"
    content = path.read_bytes()
    path.unlink()
    if keep is not None:
        path.write_bytes(content[:keep])
    before = files(cut)
    with pytest.raises(UserError, match=r"metrics\.jsonl' is (missing|\d+ bytes long)"):
        train(cut)
    assert files(cut) == before


@pytest.mark.parametrize("keep", [None, 30])
def test_lost_wall_times_are_a_note(cut: Path, keep: int | None) -> None:
    path = cut / "timings.jsonl"
    content = path.read_bytes()
    path.unlink()
    if keep is not None:
        path.write_bytes(content[:keep])
    assert any("timings.jsonl' is missing or cut short" in line for line in train(cut, until="iteration 3/3"))
    assert [json.loads(line)["iteration"] for line in path.read_text().splitlines()] == [3]


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "progress.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_checkpoint_beyond_the_stages_end_is_refused(cut: Path) -> None:
    link = json.loads((cut / "progress.json").read_text())["checkpoint"]
    (cut / "checkpoints" / "train-000002").rename(cut / "checkpoints" / "train-000099")
    edit(cut, checkpoint={**link, "step": 99})
    with pytest.raises(UserError, match=r"progress\.json' is damaged \(the checkpoint of 'train' is of step 99, .* is 3\)"):
        train(cut)


@pytest.mark.parametrize(
    "state", [{}, {"schedule": {}}, {"schedule": 3}, {"schedule": {"depth": "x", "since": 0, "recent": []}}]
)
def test_a_checkpoints_schedule_that_makes_no_sense_is_refused(cut: Path, state: dict[str, Any]) -> None:
    link = json.loads((cut / "progress.json").read_text())["checkpoint"]
    edit(cut, checkpoint={**link, "state": state})
    with pytest.raises(UserError, match=r"schedule"):
        train(cut)


def broken_model(folder: Path) -> str:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return str(folder)


def test_a_first_start_that_failed_leaves_the_folder_to_the_corrected_one(tmp_path: Path) -> None:
    wrong = {"model": broken_model(tmp_path / "wrong")}
    with pytest.raises(UserError, match="could not be loaded"):
        train(tmp_path / "r", resume=False, student=wrong)
    train(tmp_path / "r", resume=False, **{"train.iterations": 0})
    assert "tiny:32x1" in (tmp_path / "r" / "experiment.yaml").read_text()
    assert len(json.loads((tmp_path / "r" / "meta.json").read_text())["sessions"]) == 1
    with pytest.raises(UserError, match="already holds a run"):
        train(tmp_path / "r", resume=False, **{"train.iterations": 0})


def test_a_start_that_only_made_a_tokenizer_claims_nothing(tmp_path: Path) -> None:
    out = tmp_path / "r"
    with pytest.raises(UserError, match="no demonstration"):
        train(out, resume=False, **{"env.max_context": 8})
    assert (out / "tokenizer").is_dir()
    train(out, resume=False, tokenizer_vocab=270, **{"train.iterations": 0})
    assert len(json.loads((out / "student" / "tokenizer.json").read_text())["model"]["vocab"]) <= 270


def test_a_failed_supervised_run_leaves_the_folder_to_the_corrected_one(tmp_path: Path) -> None:
    out = tmp_path / "r"
    with pytest.raises(UserError, match="could not be loaded"):
        api.sft(BASE, out=out, say=print, teacher={"model": broken_model(tmp_path / "wrong"), "sft": SFT})
    assert api.sft(BASE, out=out, say=print) == out / "teacher"
    with pytest.raises(UserError, match="already holds a run"):
        api.sft(BASE, out=out, say=print, **{"teacher.sft.steps": 5})


def test_another_model_or_setting_does_not_add_its_episodes_to_an_evaluation(original: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "e", str(original / "student")
    limits: dict[str, Any] = {"tasks": 3, "max_tokens": 4, "max_turns": 3, "max_context": 128, "say": print}
    api.evaluate_run(model, "lab/Guess-v0", out=out, **limits)
    before = files(out)
    with pytest.raises(UserError, match=r"sampling\.temperature was 0\.0, is 1\.0"):
        api.rollout(model, "lab/Guess-v0", out=out, temperature=1.0, **limits)
    with pytest.raises(UserError, match="already holds a run"):
        train(out, resume=False)
    assert files(out) == before
    api.rollout(model, "lab/Guess-v0", out=out, temperature=0.0, **limits)
    assert (out / "store" / "rollout.parquet").is_file()


def test_a_server_may_be_elsewhere_when_a_run_goes_on_but_a_teacher_stays_a_server() -> None:
    about = {**BASE, "engine": {"kind": "vllm-server", "url": "http://a:1/v1", "teacher": "http://a:2/v1", "timeout": 3}}
    one = config.parse_experiment(about)
    moved = {"engine.url": "http://b:1/v1", "engine.teacher": "http://b:2/v1", "engine.timeout": 100, "engine.exchange": "x"}
    assert _first_difference(one, config.parse_experiment(config.override(about, moved))) == ""
    other = config.parse_experiment(config.override(about, {"engine.teacher": "local"}))
    assert _first_difference(one, other).startswith("engine.teacher was 'http://a:2/v1', is 'local'")
