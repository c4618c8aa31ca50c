"""What the table says of the student costs a pass of its own only where a method reads it before the update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentdistill import environment
from agentdistill.policies.base import SamplingParams
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.training import loop as loop_module
from agentdistill.training import score as score_module
from agentdistill.training.score import score
from tests.training.looped import Even, experiment, loop, near, play_even

Maker = Callable[[int], CausalLM]


@pytest.fixture(autouse=True)
def even() -> Iterator[None]:
    environment.register("lab/Even-v0", Even)
    yield
    environment.unregister("lab/Even-v0")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sequences each pass of the student alone has seen."""
    seen, real = list[int](), score_module._student_pass

    def counted(student: Any, sequences: Any, *rest: Any) -> None:
        seen.append(len(sequences))
        real(student, sequences, *rest)

    monkeypatch.setattr(score_module, "_student_pass", counted)
    return seen


def test_pending_columns_are_computed_once_and_equal_those_computed_at_once(make_lm: Maker, passes: list[int]) -> None:
    student = make_lm(0)
    teacher = TransformersScorer(near(student, "t", 1))
    rows = play_even(student, range(4), SamplingParams(max_tokens=2))
    at_once = score(student, teacher, rows, 256).table
    assert passes == [4]
    later = score(student, teacher, rows, 256, later=True).table
    assert later.pending
    assert "rkl" in later
    assert sorted(later.names) == sorted(at_once.names)
    assert passes == [4]
    for name in at_once.names:
        np.testing.assert_array_equal(later[name], at_once[name])
    assert passes == [4, 4]
    assert not later.pending


def records(make_lm: Maker, folder: Path, method: Any, **changes: Any) -> list[dict[str, Any]]:
    student = make_lm(0)
    config = experiment(method=method, **{"train.iterations": 3, **changes})
    return loop(folder, student, config, near(student, "t", 1), student)


@pytest.mark.parametrize(("method", "own"), [
    ("opd-exact", 0), ("gkd", 0), ("opd", 3), ("sod", 3), ({"preset": "opd-exact", "selection": "tip"}, 3), ("vopd", 3),
], ids=str)  # fmt: skip
def test_who_reads_nothing_of_the_student_before_the_update_pays_for_no_pass(
    make_lm: Maker, tmp_path: Path, passes: list[int], method: Any, own: int
) -> None:
    records(make_lm, tmp_path, method)
    assert len(passes) == own


@pytest.mark.parametrize("changes", [{"train.minibatches": 2}, {"train.epochs": 2}, {"train.token_budget": 40}, {}], ids=str)
def test_the_records_are_those_of_a_pass_of_its_own(
    make_lm: Maker, tmp_path: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    ours = records(make_lm, tmp_path / "ours", "opd-exact", **changes)
    saved = len(passes)
    real = loop_module.score
    monkeypatch.setattr(loop_module, "score", lambda *args, **more: real(*args, **{**more, "later": False}))
    theirs = records(make_lm, tmp_path / "theirs", "opd-exact", **changes)
    assert saved == (3 if "train.minibatches" in changes else 0)  # half of the tokens is not all of them
    assert len(passes) == saved + 3
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name, value in other.items():
            assert mine[name] == pytest.approx(value, abs=2e-5, nan_ok=True), name
