"""The doctor finds each planted fault under its own name, and nothing on a sound machine and experiment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from agentdistill import api, cli, environment
from agentdistill.doctor import CHECKS, machine, patient, run_checks, versions
from agentdistill.doctor.base import Check, Diagnosis, fail, ok
from agentdistill.engines.local import LocalEngine
from agentdistill.engines.registry import ENGINES
from agentdistill.errors import UserError
from agentdistill.policies.base import ScoreRequest, TeacherScores
from agentdistill.policies.kv import RaggedCache
from agentdistill.policies.load import load_model
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.signals import SIGNALS, TokenTable
from agentdistill.training.state import save_model

Raw = dict[str, Any]


def looked_at(source: Raw, name: str, **changes: Any) -> Diagnosis:
    """The check and what it rests on."""
    config = api.experiment(source, changes)
    wanted = {name}
    for check in reversed(CHECKS.values()):
        wanted |= set(check.after) if check.name in wanted else set()
    one = patient.Patient(config)
    try:
        return run_checks(one, [check for check in CHECKS.values() if check.name in wanted])
    finally:
        one.close()


def failed(source: Raw, name: str, **changes: Any) -> str:
    """What the check says, which is the first to fail."""
    found = looked_at(source, name, **changes)
    assert [each.name for each in found.failed] == [name], found
    return found[name].detail


def copied(folder: Path, target: Path, **changes: Any) -> str:
    """A model in another folder, with attributes of its tokenizer changed."""
    lm = load_model(str(folder))
    for name, value in changes.items():
        setattr(lm.tokenizer, name, value)
    save_model(target, lm)
    return str(target)


def plant(monkeypatch: pytest.MonkeyPatch, **methods: Any) -> None:
    """A local engine with other methods."""
    engine = type("Planted", (LocalEngine,), methods)
    monkeypatch.setitem(ENGINES, "local", replace(ENGINES["local"], open=engine))


def test_nothing_is_found_where_nothing_is_wrong(sound: Raw) -> None:
    found = api.doctor(sound)
    assert found.healthy
    outcomes = {each.name: each.outcome for each in found.results}
    assert list(outcomes) == list(CHECKS)
    assert {name for name, outcome in outcomes.items() if outcome == "skipped"} == {"cluster", "sandbox", "context"}
    assert all(each.detail for each in found.results)


def test_a_teacher_with_a_permuted_vocabulary(sound: Raw, folders: Path, tmp_path: Path) -> None:
    lm = load_model(str(folders / "teacher"))
    save_model(tmp_path / "t", lm)
    path = tmp_path / "t" / "tokenizer.json"
    data = json.loads(path.read_text())
    vocab = data["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    path.write_text(json.dumps(data))
    said = failed(sound, "vocabulary", **{"teacher.model": str(tmp_path / "t")})
    assert "different vocabularies" in said
    assert "'a' is id" in said


def test_a_teacher_that_cuts_text_into_other_tokens(sound: Raw, folders: Path, tmp_path: Path) -> None:
    copied(folders / "teacher", tmp_path / "t")
    path = tmp_path / "t" / "tokenizer.json"
    data = json.loads(path.read_text())
    assert data["model"]["merges"]
    data["model"]["merges"] = []
    path.write_text(json.dumps(data))
    assert "cut" in failed(sound, "vocabulary", **{"teacher.model": str(tmp_path / "t")})


def test_a_changed_chat_template(sound: Raw, folders: Path, tmp_path: Path) -> None:
    template = AutoTokenizer.from_pretrained(folders / "teacher").chat_template
    teacher = copied(folders / "teacher", tmp_path / "t", chat_template="{{ '\\n' }}" + template)
    said = failed(sound, "chat template", **{"teacher.model": teacher})
    assert "differently from token 0 on" in said
    same = copied(folders / "teacher", tmp_path / "same", chat_template="{# another text #}" + template)
    assert looked_at(sound, "chat template", **{"teacher.model": same}).healthy


class _Other(TransformersScorer):
    """A teacher's back end that scores at another temperature, or one token off."""

    def __init__(self, lm: CausalLM, mistake: str) -> None:
        super().__init__(lm)
        self.mistake = mistake

    def score(self, requests: Sequence[ScoreRequest]) -> list[TeacherScores]:
        answers = super().score(requests)
        for request, answer in zip(requests, answers, strict=True):
            if self.mistake == "shifted":
                answer.logprobs = answer.logprobs.roll(1)
            elif self.mistake == "noisy":
                answer.logprobs = answer.logprobs + 0.1 * torch.arange(len(answer.logprobs))
            else:
                logits = answer.distribution.logprobs(slice(None))
                ids = torch.tensor([request.ids[t] for t in request.targets])
                answer.logprobs = torch.log_softmax(logits / 0.7, -1).gather(1, ids[:, None])[:, 0]
        return answers


@pytest.mark.parametrize(
    ("mistake", "said"), [("tempered", "at temperature 0.7"), ("shifted", "the token before it"), ("noisy", "another model's")]
)
def test_a_teacher_whose_scores_are_others(sound: Raw, monkeypatch: pytest.MonkeyPatch, mistake: str, said: str) -> None:
    plant(monkeypatch, scorer=lambda self, lm, width=0: _Other(lm, mistake))
    assert said in failed(sound, "teacher parity")


def test_a_cache_that_keeps_what_should_have_been_cropped(sound: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    real = RaggedCache.swap

    def swap(cache: RaggedCache, a: int, b: int) -> None:
        real(cache, a, b)
        if a != b:
            cache.keys[0][a] = cache.keys[0][b]

    monkeypatch.setattr(RaggedCache, "swap", swap)
    admit = TransformersSampler._admit

    def one_short(sampler: TransformersSampler, order: int, request: Any, params: Any) -> Any:
        job = admit(sampler, order, request, params)
        row = sampler._rows[order]
        if len(row.tokens) > 3:  # takes the cached ones for one more than they are
            row.tokens.append(job.pending[0])
            job.pending = job.pending[1:] or [request.context[-1]]
        return job

    monkeypatch.setattr(TransformersSampler, "_admit", one_short)
    assert "in turn 2" in failed(sound, "prefix cache")


def test_a_cache_that_outlives_a_change_of_weights(sound: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(TransformersSampler):
        def release(self, keys: Any = None) -> None:
            if keys is not None:
                super().release(keys)

    plant(monkeypatch, sampler=lambda self, lm, cache=True: Forgetful(lm) if cache else TransformersSampler(lm))
    assert "it is stale" in failed(sound, "prefix cache")


def test_a_sampler_that_takes_only_some_of_the_new_weights(sound: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    class Half(TransformersSampler):
        """Its output head, tied to the input embeddings, stays what it was, as vLLM's does that is not in the file."""

        def __init__(self, lm: CausalLM) -> None:
            super().__init__(lm)
            self.head = lm.head.weight.detach().clone()

        def generate(self, requests: Any, params: Any) -> Any:
            real = CausalLM.logits
            monkeypatch.setattr(CausalLM, "logits", lambda lm, hidden: (hidden @ self.head.T).float())
            try:
                return super().generate(requests, params)
            finally:
                monkeypatch.setattr(CausalLM, "logits", real)

    one: dict[int, Half] = {}
    plant(monkeypatch, sampler=lambda self, lm, cache=True: one.setdefault(id(lm), Half(lm)))
    assert "some of the old ones are still in use" in failed(sound, "weight sync")


def test_the_student_is_left_as_it_was(sound: Raw) -> None:
    one = patient.Patient(api.experiment(sound))
    before = {name: tensor.clone() for name, tensor in one.student.own().items()}
    run_checks(one, CHECKS.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in one.student.own().items())
    assert all(p.grad is None for p in one.student.model.parameters())
    one.close()


@pytest.mark.parametrize(("shift", "outcome"), [(0.005, "warn"), (0.5, "fail")])
def test_a_sampler_whose_log_probs_are_not_the_trainers(
    sound: Raw, monkeypatch: pytest.MonkeyPatch, shift: float, outcome: str
) -> None:
    class Off(TransformersSampler):
        def generate(self, requests: Any, params: Any) -> Any:
            samples = super().generate(requests, params)
            for sample in samples:
                sample.logprobs_t1 = [value - shift for value in sample.logprobs_t1]
            return samples

    plant(monkeypatch, sampler=lambda self, lm, cache=True: Off(lm))
    assert looked_at(sound, "sampler gap")["sampler gap"].outcome == outcome


def test_a_signal_that_is_multiplied_by_zero(sound: Raw) -> None:
    @SIGNALS.register("nothing", needs=frozenset({"teacher"}))
    def nothing(table: TokenTable) -> np.ndarray:
        """`[n]`: 0 times the log-ratio."""
        return 0.0 * (table["teacher"] - table["logprob"])

    try:
        assert "signal 'nothing' has no effect" in failed(sound, "signal", method={"preset": "opd", "signal": "nothing"})
    finally:
        del SIGNALS._entries["nothing"]


def test_a_teacher_that_says_what_the_student_says(sound: Raw) -> None:
    assert "say nothing that the student does not" in failed(sound, "experiment", teacher={"model": "initial"})
    assert "has no effect" in failed(sound, "signal", teacher={"model": sound["student"]["model"]})
    assert looked_at(sound, "signal", teacher={"model": "initial", "privileged": True}).healthy


def test_a_distillation_term_whose_weights_are_all_zero_is_no_proof(sound: Raw) -> None:
    later = {"kind": "linear", "start": 0.0, "by": 0.0}
    found = looked_at(sound, "signal", method={"preset": "opd", "kd_coef": later})["signal"]
    assert (found.outcome, "nothing can be told" in found.detail) == ("warn", True)
    assert "nothing to learn from" in failed(sound, "experiment", method={"preset": "opd", "kd_coef": 0.0})
    beside_a_reward = {"preset": "sod", "kd_coef": 0.0}
    assert "signal 'opd' is multiplied by method.kd_coef = 0" in failed(
        sound, "signal", method=beside_a_reward, **{"train.rollouts": 2}
    )


@pytest.mark.parametrize(
    ("version", "outcome", "said"),
    [
        ("2.8.1", "fail", "torch 2.8.1 is outside >=2.9"),
        ("2.99.0", "warn", "torch 2.99.0 (tested up to"),
        (None, "fail", "torch is not"),
    ],
)
def test_a_library_outside_its_window(monkeypatch: pytest.MonkeyPatch, version: str | None, outcome: str, said: str) -> None:
    real = versions._installed
    other = None if version is None else versions.Version(version)
    monkeypatch.setattr(versions, "_installed", lambda name: other if name == "torch" else real(name))
    found = api.doctor(cheap=True)["versions"]
    assert found.outcome == outcome
    assert said in found.detail


def test_windows_are_those_of_the_package() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    named = {line.partition(";")[0].split("[")[0].strip(): line for line in asked}
    for name, (window, _) in versions.WINDOWS.items():
        assert f"{name}{window}" in {*asked, *named}, name


def test_a_missing_data_set_and_no_java(sound: Raw, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTDISTILL_DATA", str(tmp_path))
    said = failed(sound, "environment", **{"env.id": "agentdistill/Code-v0"})
    assert "AGENTDISTILL_DATA/code" in said
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert "Java" in failed(sound, "environment", **{"env.id": "agentdistill/ScienceWorld-v0"})
    alone = api.doctor(cheap=True)["environment"]
    assert alone.outcome == "warn"
    assert "agentdistill/Code-v0 needs" in alone.detail


def test_tasks_that_are_not_there(sound: Raw) -> None:
    assert "has 10000 tasks, fewer than the 20000" in failed(sound, "tasks", **{"eval.split": "train", "eval.tasks": 20000})
    assert "has none" in failed(sound, "tasks", **{"env.id": "lab/Mute-v0", "teacher.privileged": True})


def test_an_experiment_that_train_would_refuse(sound: Raw) -> None:
    found = api.doctor(sound, method="opd", teacher=None)
    assert "has no teacher section" in found["experiment"].detail
    assert found["models"].outcome == "skipped"
    assert found["models"].detail == "'experiment' failed"


def test_a_model_that_cannot_be_loaded(sound: Raw, folders: Path, tmp_path: Path) -> None:
    copied(folders / "teacher", tmp_path / "t")
    weights = tmp_path / "t" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "could not be loaded" in failed(sound, "models", **{"teacher.model": str(tmp_path / "t")})


def test_a_plan_that_a_full_context_leaves_no_room_for(sound: Raw) -> None:
    privileged = {"teacher.privileged": True}
    assert looked_at(sound, "context", **privileged)["context"].outcome == "ok"
    tight = looked_at(sound, "context", **privileged, **{"env.max_context": 512})["context"]  # all that the teacher takes
    assert tight.outcome == "warn"
    assert "longer than the 512 that teacher takes" in tight.detail


def test_too_little_memory_and_disk(sound: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "machine_memory", lambda: (100_000, 50_000, "in memory"))
    assert "take a smaller model" in failed(sound, "memory")
    monkeypatch.setattr(machine, "machine_memory", lambda: (1 << 40, 100_000, "in memory"))
    assert looked_at(sound, "memory")["memory"].outcome == "warn"

    class Usage:
        free = 100_000

    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: Usage)
    assert "choose another --out" in failed(sound, "disk")
    assert looked_at(sound, "disk", **{"student.lora": {"r": 1, "targets": ["q_proj"]}})["disk"].outcome == "warn"


def test_what_is_wrong_with_a_model_or_a_folder_is_not_told_as_a_lack_of_room(sound: Raw, tmp_path: Path) -> None:
    missing = {"student.model": str(tmp_path / "nowhere"), "teacher.model": "tiny:31x2", "method": "no-such-method"}
    config = api.experiment(sound, missing)
    for folder in (tmp_path, tmp_path / ("x" * 300)):
        found = run_checks(patient.Patient(config, folder), [CHECKS["memory"], CHECKS["disk"]])
        assert [each.outcome for each in found.results] == ["skipped", "skipped"]


def test_memory_is_counted_by_parameter(folders: Path) -> None:
    from agentdistill.doctor.sizes import parameters

    lm = load_model(str(folders / "student"))
    assert parameters(str(folders / "student")) == sum(p.numel() for p in lm.model.parameters())


@pytest.mark.parametrize(("holds", "outcome"), [(["cpu"], "warn"), (["cpu", "network"], "ok")])
def test_a_sandbox_that_holds_less(sound: Raw, monkeypatch: pytest.MonkeyPatch, holds: list[str], outcome: str) -> None:
    missing = {} if "network" in holds else {"network": "a connection went through"}
    about = {"python": {"sandbox": {"backend": "restricted", "holds": holds, "missing": missing}}}
    monkeypatch.setattr(environment, "run_metadata", lambda env: about)
    monkeypatch.setattr(patient.EnvPool, "run_metadata", lambda pool: about)
    found = looked_at(sound, "sandbox")["sandbox"]
    assert found.outcome == outcome
    assert ("restricted has no network: a connection went through" in found.detail) == (outcome == "warn")


def test_a_check_that_breaks_is_a_failure_and_the_next_is_made() -> None:
    def broken(one: patient.Patient) -> Any:
        raise ZeroDivisionError("by nothing")

    checks = [Check("a", "cheap", broken, alone=True), Check("b", "cheap", lambda one: ok("fine"), alone=True)]
    found = run_checks(patient.Patient(), checks)
    assert [each.outcome for each in found.results] == ["fail", "ok"]
    assert "ZeroDivisionError" in found["a"].detail


def test_train_makes_the_cheap_checks_first_and_refuses_a_failure(
    sound: Raw, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(CHECKS, "disk", replace(CHECKS["disk"], examine=lambda one: fail("no room")))
    with pytest.raises(UserError, match="disk: no room"):
        api.train(sound, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()
    assert {name for name, check in CHECKS.items() if check.at_start} == {"versions", "memory", "disk"}
    assert all(check.cost == "cheap" for check in CHECKS.values() if check.at_start)


def test_the_command_prints_a_table_or_json_and_exits_with_1_on_a_failure(
    sound: Raw, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(json.dumps(sound))
    assert cli.main(["doctor", str(path), "--cheap"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["check", "outcome"]
    assert {line.split()[0] for line in lines[1:]} == {name for name, check in CHECKS.items() if check.cost == "cheap"}
    assert cli.main(["doctor", str(path), "--json", "--cheap", "--student.model", "tiny:31x2"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["healthy"] is False
    assert "experiment" in err


def test_a_runs_folder_is_looked_at_with_its_own_models(sound: Raw, folders: Path, tmp_path: Path) -> None:
    from agentdistill import config

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "experiment.yaml").write_text(config.dump(api.experiment(sound, {"student.model": "tiny:32x1"})))
    save_model(tmp_path / "run" / "final", load_model(str(folders / "student")))
    config = api.experiment(sound, {"student.model": "tiny:32x1"})
    one, new = (patient.Patient(config, tmp_path / "run", trained=trained) for trained in (True, False))
    assert (one.source("student"), new.source("student")) == (str(tmp_path / "run" / "final"), "tiny:32x1")
    assert api.doctor(tmp_path / "run", cheap=True)["memory"].outcome == "ok"
