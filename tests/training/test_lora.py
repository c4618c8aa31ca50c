"""A run that distils into an adapter: what it trains, what it leaves on disk, and that every verb reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from agentdistill import api
from agentdistill.errors import UserError
from agentdistill.policies.load import load_model
from agentdistill.store import Store
from agentdistill.training.run import train as train_run
from tests.needs import needs

needs("peft", "pip install 'agentdistill[lora]'")

LORA = {"r": 4, "alpha": 8}
RUN: dict[str, Any] = {
    "name": "guess",
    "env": {"id": "lab/Guess-v0", "max_turns": 4, "max_context": 128},
    "student": {"model": "tiny:32x1", "sft": {"demonstrations": 16, "steps": 12, "batch": 4}, "lora": LORA},
    "teacher": {"model": "initial", "privileged": True},
    "method": "opsd",
    "sampling": {"max_tokens": 4},
    "train": {"iterations": 3, "tasks": 3, "lr": 1e-2, "checkpoint_every": 1},
    "eval": {"tasks": 4, "temperature": 1.0},
}


class Stopped(Exception):
    """What ends a session in the middle."""


def run(out: Path, **changes: Any) -> tuple[Path, list[str]]:
    said: list[str] = []
    api.train(RUN, out=out, say=said.append, **changes)
    return out, said


def warm(folder: Path) -> dict[str, Any]:
    """Starts from another run's student."""
    return {"student.model": str(folder / "student"), "student.sft": None}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, registered: None) -> Path:
    return run(tmp_path_factory.mktemp("lora") / "run")[0]


def test_only_the_adapter_is_trained_and_kept(whole: Path) -> None:
    adapter = load_file(whole / "final" / "adapter_model.safetensors")
    assert len(adapter) == 2 * 7
    assert all(tensor.dtype == torch.float32 for tensor in adapter.values())
    assert all(bool(tensor.any()) for name, tensor in adapter.items() if "lora_B" in name)  # it was 0
    assert (whole / "student" / "model.safetensors").is_file()
    assert not list((whole / "final").glob("model*"))


def test_it_says_how_large_the_adapter_and_its_checkpoints_are(whole: Path, tmp_path: Path) -> None:
    _, said = run(tmp_path / "r", **warm(whole), **{"train.iterations": 1, "eval.tasks": 1})
    (line,) = [each for each in said if each.startswith("LoRA of rank 4:")]
    numbers = sum(t.numel() for t in load_file(whole / "final" / "adapter_model.safetensors").values())
    assert f"{numbers:,} of" in line
    assert "a checkpoint takes" in line


def test_the_teacher_says_what_the_student_said_before_it_had_an_adapter(whole: Path, tmp_path: Path) -> None:
    """What `initial` said in the last iteration, when the student had moved, is what the warm student's folder says."""
    run(tmp_path / "r", teacher={"model": "initial"}, method="opd-exact", **warm(whole), **{"train.rollouts": 2})
    api.score(tmp_path / "r", str(whole / "student"), name="again", say=lambda _: None)
    compared = 0
    for trajectory in Store(tmp_path / "r" / "store").read("iter-000003"):
        ours, theirs = trajectory.scores["initial"].logprobs, trajectory.scores["again"].logprobs
        assert np.abs(ours - theirs).max() < 1e-6
        compared += len(ours)
    assert compared > 10


@pytest.mark.parametrize("own", ["initial", "ema", "live"])
def test_a_checkpoint_is_the_adapter_alone_and_a_run_resumed_from_it_writes_the_same_metrics(
    whole: Path, tmp_path: Path, own: str
) -> None:
    changes = {**warm(whole), "teacher.model": own}
    straight, _ = run(tmp_path / "straight", **changes)
    cut = tmp_path / "cut"

    def stop(line: str) -> None:
        if line.startswith("iteration 3/"):
            raise Stopped

    with pytest.raises(Stopped):
        train_run(api.experiment(RUN, changes), cut, say=stop)
    (checkpoint,) = (cut / "checkpoints").iterdir()
    adapter = load_file(straight / "final" / "adapter_model.safetensors")
    kept = {path.stem: load_file(path) for path in checkpoint.glob("*.safetensors")}
    assert set(kept) == {"weights", "teacher"} - ({"teacher"} if own != "ema" else set())
    for tensors in kept.values():
        assert len(tensors) == 2 * 7
        assert all("lora_" in name for name in tensors)
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    assert sum(each["exp_avg"].numel() for each in state.values()) == sum(t.numel() for t in adapter.values())

    api.train(RUN, out=cut, resume=True, say=lambda _: None, **changes)
    assert (cut / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()
    name = "adapter_model.safetensors"
    assert (cut / "final" / name).read_bytes() == (straight / "final" / name).read_bytes()


def test_a_reference_may_be_the_model_without_the_adapter(whole: Path, tmp_path: Path) -> None:
    folder, _ = run(
        tmp_path / "r", method="exopd", teacher={"model": str(whole / "final")}, reference={"model": "initial"}, **warm(whole)
    )
    [first, *_] = Store(folder / "store").read("iter-000001")
    assert {str(whole / "final"), "reference:initial"} <= first.scores.keys()


def test_every_verb_reads_the_adapter_folder(whole: Path, tmp_path: Path) -> None:
    model, env = str(whole / "final"), "lab/Guess-v0"
    quiet: Any = {"say": lambda _: None}
    limits = {"max_turns": 4, "max_context": 128, "max_tokens": 4}
    rate = api.evaluate_run(model, env, out=tmp_path / "eval", tasks=4, temperature=1.0, **limits, **quiet)
    after = json.loads((whole / "evals" / "after.json").read_text())
    assert rate.as_dict().items() >= after.items()
    assert api.rollout(model, env, out=tmp_path / "rollout", tasks=2, **limits, **quiet)
    assert api.replay(tmp_path / "rollout", **quiet).exact
    api.score(whole, model, name="final", batch="eval-after", **quiet)
    for trajectory in Store(whole / "store").read("eval-after"):
        own = np.concatenate([turn.logprobs_t1 for turn in trajectory.turns])
        assert np.abs(trajectory.scores["final"].logprobs - own).max() < 1e-4
    assert api.branch(whole, model, 1, out=tmp_path / "branch", batch="eval-before", **quiet).trajectories


def test_merge_writes_whole_weights_that_say_the_same_to_plain_transformers(whole: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    said: list[str] = []
    assert api.merge(whole, out=tmp_path / "merged", say=said.append) == tmp_path / "merged"
    assert "differ by" in said[0]
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    ids = torch.arange(40)[None]
    lm = load_model(str(whole / "final"))
    with torch.no_grad():
        adapted = torch.log_softmax(lm.logits(lm.hidden(ids)), -1)
        merged, below = (
            torch.log_softmax(model(input_ids=ids).logits, -1) for model in (plain, load_model(str(whole / "student")).model)
        )
    assert (merged - adapted).abs().max() < 1e-5
    assert (below - adapted).abs().max() > 1e-2
    assert load_model(str(tmp_path / "merged")).tokenizer.get_vocab() == lm.tokenizer.get_vocab()


def test_merge_refuses_what_is_no_adapter_and_a_folder_in_use(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a whole model already"):
        api.merge(whole / "student", out=tmp_path / "m")
    with pytest.raises(UserError, match=r"holds no adapter_config\.json"):
        api.merge(tmp_path, out=tmp_path / "m")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="already holds something"):
        api.merge(whole, out=tmp_path / "used")
    assert (tmp_path / "used" / "thesis.txt").read_text() == "x"


def test_an_adapter_is_no_ground_for_another_and_starts_a_whole_student(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"student\.lora would put another on it; merge it first"):
        run(tmp_path / "r", **{"student.model": str(whole / "final"), "student.sft": None})
    alone = {"student.model": str(whole / "final"), "student.sft": None, "student.lora": None}
    folder, _ = run(tmp_path / "r", **alone, **{"train.iterations": 1, "eval.tasks": 1})
    assert (folder / "final" / "model.safetensors").is_file()
    before = load_model(str(folder / "final")).named_weights().keys()
    assert before == load_model(str(whole / "student")).named_weights().keys()


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"targets": ["q_prj"]}, "did you mean 'q_proj'"),
        ({"targets": "lm_head"}, "the output head"),
        ({"dropout": 0.1}, "must be 0, not 0.1"),
        ({"rank": 4}, "unknown field 'student.lora.rank'"),
        ({"targets": []}, "must name at least one layer"),
        ({"r": 0}, "student.lora.r"),
    ],
)
def test_settings_that_mean_nothing_are_refused_before_anything_is_trained(
    tmp_path: Path, lora: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path / "r", **{"student.lora": lora})
    assert not (tmp_path / "r" / "metrics.jsonl").exists()


def test_a_section_without_settings_is_the_published_one() -> None:
    lora = api.experiment({**RUN, "student": {"model": "tiny:32x1", "lora": {}}}).student.lora
    assert lora is not None
    assert (lora.r, lora.alpha, lora.targets) == (64, 128, "all-linear")
