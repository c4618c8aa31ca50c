"""The doctor and a teacher behind a real HTTP server: sound, tempered, shifted, or another model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from agentdistill import api
from agentdistill.doctor import CHECKS, patient, run_checks
from agentdistill.doctor.base import Check, Diagnosis, Result
from agentdistill.errors import UserError
from agentdistill.policies.load import load_model
from agentdistill.policies.model import CausalLM
from agentdistill.training.session import Session
from tests.engines.wired import Answer, serving

pytestmark = pytest.mark.usefixtures("undrawn")  # nobody looks at the runs' pictures

NEEDED = ("experiment", "vocabulary", "environment", "tasks", "chat template", "models", "engines", "teacher parity")


def scores(lm: CausalLM, mistake: str = "") -> Answer:
    """Answers completions as vLLM does, with prompt log-probs, and with a mistake."""

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        ids = body["prompt"]
        with torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([ids])).logits[0]
        logprobs = torch.log_softmax(logits / (0.7 if mistake == "tempered" else 1), -1)
        values = [float(logprobs[t - 1, ids[t]]) for t in range(1, len(ids))]
        if mistake == "shifted":
            values = [values[-1], *values[:-1]]
        rows = [None, *({str(ids[t]): {"logprob": values[t - 1]}} for t in range(1, len(ids)))]
        return 200, {"choices": [{"index": 0, "text": "", "prompt_logprobs": rows}]}

    return answer


def examined(sound: dict[str, Any], url: str, checks: Iterable[Check]) -> Diagnosis:
    """What the doctor finds where a teacher is served at an address."""
    one = patient.Patient(api.experiment({**sound, "method": "opd", "engine": {"teacher": url}}, {}))
    try:
        return run_checks(one, checks)
    finally:
        one.close()


def looked_at(sound: dict[str, Any], folders: Path, served: Path, mistake: str) -> Result:
    models = {"data": [{"id": "teacher", "root": str(folders / "teacher"), "max_model_len": 513}]}
    with serving(scores(load_model(str(served)), mistake), models) as url:
        return examined(sound, url, [each for each in CHECKS.values() if each.name in NEEDED])["teacher parity"]


def test_a_sound_server_is_found_sound(sound: dict[str, Any], folders: Path) -> None:
    found = looked_at(sound, folders, folders / "teacher", "")
    assert found.outcome == "ok", found


@pytest.mark.parametrize(("mistake", "said"), [("tempered", "at temperature 0.7"), ("shifted", "the token before it")])
def test_a_server_that_returns_other_scores(sound: dict[str, Any], folders: Path, mistake: str, said: str) -> None:
    found = looked_at(sound, folders, folders / "teacher", mistake)
    assert found.outcome == "fail"
    assert said in found.detail


def test_a_server_with_another_model_under_the_teachers_name(sound: dict[str, Any], folders: Path) -> None:
    found = looked_at(sound, folders, folders / "student", "")
    assert found.outcome == "fail"
    assert "another model's" in found.detail


def test_a_server_that_does_not_answer_is_one_failure(sound: dict[str, Any]) -> None:
    found = examined(sound, "http://127.0.0.1:9/v1", CHECKS.values())
    assert [each.name for each in found.failed] == ["engines"]
    assert "127.0.0.1:9" in found["engines"].detail
    assert found["teacher parity"].detail == "'engines' failed"


@pytest.mark.parametrize(
    ("temperature", "why"), [(0.5, "it is served elsewhere"), (1.0, "answers with text and not with token ids")]
)
def test_a_run_is_taught_by_a_server(
    sound: dict[str, Any], folders: Path, tmp_path: Path, temperature: float, why: str
) -> None:
    """One that scores and cannot play: that is enough for a teacher."""
    models = {"data": [{"id": "teacher", "root": str(folders / "teacher"), "max_model_len": 513}]}
    lm = load_model(str(folders / "teacher"))
    with serving(scores(lm), models) as url:
        changes = {"method": "opd", "eval.temperature": temperature}
        near, far = tmp_path / "near", tmp_path / "far"
        said: list[str] = []
        api.train({**sound}, out=near, say=said.append, **changes)
        api.train({**sound}, out=far, say=said.append, **changes, **{"engine.teacher": url})

    def iterations(run: Path) -> list[dict[str, Any]]:
        lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
        return [each for each in lines if each["kind"] == "iteration"]

    for ours, theirs in zip(iterations(near), iterations(far), strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], abs=1e-5)
        assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-4)
    assert any("is not evaluated: " in line and why in line for line in said)
    assert "teacher" not in json.loads((far / "summary.json").read_text())


def test_a_server_without_log_probs_of_a_prompt_is_one_failure(sound: dict[str, Any], folders: Path) -> None:
    def text(body: dict[str, Any]) -> tuple[int, Any]:
        return 200, {"choices": [{"index": 0, "text": "so"}]}

    models = {"data": [{"id": "teacher", "root": str(folders / "teacher"), "max_model_len": 513}]}
    with serving(text, models) as url:
        found = examined(sound, url, CHECKS.values())
    assert [each.name for each in found.failed] == ["engines"]
    assert "returns no log-probs of a prompt" in found["engines"].detail


def test_the_doctor_asks_for_a_teachers_scorer_once(sound: dict[str, Any]) -> None:
    """An engine may start something for each that it is asked for."""
    one = patient.Patient(api.experiment({**sound, "method": "opd"}, {}))
    try:
        assert one.scorer("teacher") is one.scorer("teacher")
    finally:
        one.close()


def test_a_server_that_does_not_answer_ends_a_run_before_anything_is_trained(
    sound: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(self: Session, *_: object) -> None:
        raise AssertionError("a supervised stage began")

    monkeypatch.setattr(Session, "warm_up", trained)
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9/v1 cannot be reached"):
        api.train({**sound}, out=tmp_path / "run", say=print, method="opd", **{"engine.teacher": "http://127.0.0.1:9/v1"})
