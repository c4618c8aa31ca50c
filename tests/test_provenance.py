"""Where steps come from: by batch, turn and outcome, as a column of tokens, and with the command where scores are missing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import agentdistill as ad
from agentdistill import cli
from agentdistill.errors import UserError
from agentdistill.provenance import CLASSES, trace, traced_frame
from agentdistill.store import Store
from agentdistill.trajectory import Scores, StopReason, Trajectory, Turn

# Probabilities of the teacher, the student before and the distilled one that make a step of each class.
KINDS = {
    "shared": (0.5, 0.5, 0.45), "teacher": (0.9, 0.2, 0.8), "student": (0.2, 0.9, 0.3), "boosted": (0.3, 0.35, 0.9),
}  # fmt: skip


def episode(name: str, kinds: list[str], *, success: bool = False, lengths: int = 2) -> Trajectory:
    """An episode with a turn of each kind in this order, a few tokens each, behind an expert's."""
    turns = [Turn([1], [9, 9], "look", "a room", author="expert", finish="replayed")]
    scores: dict[str, list[float]] = {"big": [], "student": []}
    for kind in kinds:
        t, s, d = (math.log(p) for p in KINDS[kind])
        uneven = [0.3, -0.3] if lengths == 2 else [0.0] * lengths  # the mean is what counts
        turns.append(Turn([2], [3] * lengths, "go", "on", [d + u for u in uneven], [d + u for u in uneven]))
        scores["big"] += [t + u for u in uneven]
        scores["student"] += [s - u for u in uneven]
    made = {scorer: Scores(np.array(values)) for scorer, values in scores.items()}
    return Trajectory(name, "lab/A-v0", 0, "a", [], turns, StopReason.TERMINATED, success=success, scores=made)


def run_folder(path: Path, batches: dict[str, list[Trajectory]]) -> Path:
    for batch, items in batches.items():
        Store(path / "store").write(batch, items)
    (path / "student").mkdir()
    about = {"env": {"id": "lab/A-v0"}, "student": {"model": "tiny:32x1"}, "teacher": {"model": "big"}}
    (path / "experiment.yaml").write_text(json.dumps(about))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    first = [episode("a", ["student", "student", "shared"]), episode("b", ["teacher"], success=True)]
    second = [episode("c", ["teacher", "boosted"], success=True), Trajectory("d", "e", 0, "", [], [], StopReason.ENV_ERROR)]
    return run_folder(tmp_path / "run", {"iter-000001": first, "iter-000002": second})


def test_a_step_has_the_class_of_its_geometric_mean_probabilities() -> None:
    found = trace([episode("a", list(KINDS)), episode("b", ["teacher"], lengths=3)], teacher="big", student="student")
    assert [CLASSES[i] for i in found.origin] == [*KINDS, "teacher"]
    assert found.trajectory.tolist() == [0, 0, 0, 0, 1]
    assert found.turn.tolist() == [1, 2, 3, 4, 1]  # turn 0 is the expert's
    assert found.step.tolist() == [0, 1, 2, 3, 0]
    assert found.tokens.tolist() == [2, 2, 2, 2, 3]
    for column, place in (("teacher", 0), ("student", 1), ("distilled", 2)):
        assert getattr(found, column)[:4] == pytest.approx([KINDS[kind][place] for kind in KINDS])


def test_steps_are_counted_by_batch_turn_and_outcome(run: Path) -> None:
    found = ad.provenance(run)
    assert (found.teacher, found.student) == ("big", "student")
    order = {name: place for place, name in enumerate(CLASSES)}
    by_batch = {name: counts.sum(0) for name, counts in found.counts.items()}
    assert {name: by_batch["iter-000001"][order[name]] for name in CLASSES} == {
        "shared": 1,
        "teacher": 1,
        "student": 2,
        "boosted": 0,
    }
    assert by_batch["iter-000002"].sum() == 2
    turns = found.by_turn()
    assert turns.sum(1).tolist() == [0, 3, 2, 1]
    assert turns[1, order["teacher"]] == 2
    assert found.by_turn(["iter-000002"]).sum(1).tolist() == [0, 1, 1]
    assert found.outcomes["success"].sum() == 3
    assert found.outcomes["failure"][order["student"]] == 2
    json.dumps(found.as_dict())


def test_every_student_token_has_its_steps_class_and_no_other_token_has_one(run: Path) -> None:
    items = Store(run / "store").read("iter-000001")
    frame = traced_frame(items, teacher="big", student="student")
    said, action = frame["provenance"].to_pylist(), frame["is_action"].to_pylist()
    assert [value for value, own in zip(said, action, strict=True) if own] == ["student"] * 4 + ["shared"] * 2 + ["teacher"] * 2
    assert {value for value, own in zip(said, action, strict=True) if not own} == {None}
    assert frame.column_names[-3:] == ["logprob.big", "logprob.student", "provenance"]


def test_bounds_decide(run: Path) -> None:
    assert ad.provenance(run, alpha=1.0).by_turn().sum(0).tolist() == [6, 0, 0, 0]
    assert ad.provenance(run, alpha=0, beta=1.0).by_turn().sum(0).tolist() == [0, 0, 0, 6]
    with pytest.raises(UserError, match="alpha is -1"):
        ad.provenance(run, alpha=-1)


def test_the_command_prints_shares_and_writes_a_row_a_step(run: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "deep" / "steps.parquet"
    assert cli.main(["provenance", str(run), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "teacher 'big', student before 'student'; alpha 0.1, beta 0.1"
    assert ["iter-000001", "4", "25.0%", "25.0%", "50.0%", "0.0%"] in [line.split() for line in lines]
    assert ["success", "3", "0.0%", "66.7%", "0.0%", "33.3%"] in [line.split() for line in lines]
    table = pq.read_table(out).to_pylist()
    assert [(row["batch"], row["trajectory"], row["turn"], row["provenance"]) for row in table] == [
        ("iter-000001", "a", 1, "student"), ("iter-000001", "a", 2, "student"), ("iter-000001", "a", 3, "shared"),
        ("iter-000001", "b", 1, "teacher"), ("iter-000002", "c", 1, "teacher"), ("iter-000002", "c", 2, "boosted"),
    ]  # fmt: skip
    assert table[0]["distilled"] == pytest.approx(0.3)


def test_missing_scores_are_named_with_the_command_that_makes_them(run: Path, tmp_path: Path) -> None:
    items = [episode("a", ["shared"])]
    for item in items:
        del item.scores["student"]
    bare = run_folder(tmp_path / "bare", {"iter-000001": items})
    with pytest.raises(UserError) as error:
        ad.provenance(bare)
    assert f"make them with `agentdistill score {bare} --scorer student={bare}/student`" in str(error.value)
    with pytest.raises(UserError, match="scores by both 'bigg' and 'student'; did you mean 'big'"):
        ad.provenance(run, teacher="bigg")
    assert ad.provenance(run, batch="iter-000002").by_turn().sum() == 2
    with pytest.raises(UserError, match="has no batch 'iter-000003'"):
        ad.provenance(run, batch="iter-000003")


def test_a_folder_that_names_no_teacher_needs_its_name(run: Path) -> None:
    (run / "experiment.yaml").unlink()
    with pytest.raises(UserError, match="does not say whose scores are its teacher's; say which by --teacher NAME"):
        ad.provenance(run)
    assert ad.provenance(run, teacher="big").by_turn().sum() == 6


def test_trajectories_without_scores_or_tokens_are_refused() -> None:
    item = episode("a", ["shared"])
    with pytest.raises(UserError, match="trajectory 'a' has no scores by 'bigger'"):
        trace([item], teacher="bigger", student="student")
    item.turns = item.turns[:1]
    item.scores = {name: Scores(np.empty(0)) for name in item.scores}
    with pytest.raises(UserError, match="trajectory 'a' has no student token"):
        trace([item], teacher="big", student="student")
