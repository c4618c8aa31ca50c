"""A run as a whole, on a small environment: what it refuses, what it writes, and that nothing about it is silent."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from agentdistill import api
from agentdistill.config import Experiment
from agentdistill.errors import UserError
from agentdistill.policies.model import CausalLM
from agentdistill.store import Store
from agentdistill.training.journal import Journal
from agentdistill.training.run import train
from agentdistill.training.trainer import LocalTrainer, Trainer, TrainerLost

SFT = {"demonstrations": 16, "steps": 4, "batch": 4}
BASE: dict[str, Any] = {
    "name": "guess",
    "env": {"id": "lab/Guess-v0", "max_turns": 5, "max_context": 128},
    "student": {"model": "tiny:32x1", "sft": SFT},
    "teacher": {"model": "tiny:32x2", "sft": SFT},
    "method": "opd-exact",
    "sampling": {"max_tokens": 4},
    "train": {"iterations": 2, "tasks": 3, "checkpoint_every": 1},
    "eval": {"tasks": 6, "every": 1, "every_tasks": 4, "temperature": 1.0},
}


def run(out: Path, **changes: Any) -> tuple[Path, list[str]]:
    said: list[str] = []
    api.train(BASE, out=out, say=said.append, **changes)
    return out, said


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [r for r in records if r["kind"] == kind]


def made(folder: Path) -> dict[str, Any]:
    """The models of another run, as they are."""
    return {
        f"{role}.{field}": value
        for role in ("student", "teacher")
        for field, value in (("model", str(folder / role)), ("sft", None))
    }


def test_a_run_leaves_models_metrics_trajectories_summary_and_report(tmp_path: Path) -> None:
    folder, said = run(tmp_path / "r")
    summary = json.loads((folder / "summary.json").read_text())
    assert {"before", "after", "teacher", "seconds", "report"} == summary.keys()
    assert summary["after"].keys() >= {"success", "low", "high", "n"}
    assert Path(summary["report"]).is_file()
    assert [r["label"] for r in lines(folder, "eval")] == ["teacher", "before", "during", "after"]
    assert Store(folder / "store").batches() == ["eval-after", "eval-before", "eval-teacher", "iter-000001", "iter-000002"]
    for name in ("teacher", "student", "final"):
        assert (folder / name / "model.safetensors").is_file()
    assert any(line.startswith("before") for line in said[-4:])
    first = lines(folder, "iteration")[0]
    assert len(first["kl_by_turn"]) == len(first["tokens_by_turn"]) > 1


def test_a_student_is_trained_in_a_window_of_its_episodes(tmp_path: Path) -> None:
    changes = {"env.view": {"kind": "window", "pairs": 1}, "env.max_context": 160, "schedule": "tcod-b2f"}
    small = {"train.iterations": 1, "sampling.max_tokens": 3, "eval.every": 0, "eval.tasks": 1, "student.sft.demonstrations": 4}
    folder, _ = run(tmp_path / "r", **changes, **small)
    (row,) = lines(folder, "iteration")
    assert row["grad_norm"] > 0
    assert row["sampler_gap"] < 1e-4
    played = Store(folder / "store").read("iter-000001")
    assert any(t.prefix_turns for t in played)
    assert all(turn.fresh and turn.action_ids for t in played for turn in t.turns)
    assert max(len(t.turns) for t in played) > 2
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    for trajectory in played:
        for k, turn in enumerate(trajectory.turns):
            assert f"Steps taken so far: {k}." in tokenizer.decode(turn.prompt_ids)


def test_the_same_experiment_gives_the_same_metrics_to_the_byte(tmp_path: Path) -> None:
    a, _ = run(tmp_path / "a")
    b, _ = run(tmp_path / "b")
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()


def test_training_changes_the_student_and_lowers_its_divergence(tmp_path: Path) -> None:
    folder, _ = run(
        tmp_path / "r",
        **{
            "train.iterations": 30,
            "train.lr": 3e-3,
            "train.tasks": 8,
            "eval.every": 0,
            "teacher.sft.steps": 60,
            "env.max_turns": 3,
        },
    )
    kl = [r["kl"] for r in lines(folder, "iteration")]
    assert sum(kl[-5:]) < 0.7 * sum(kl[:5])


def test_a_preset_with_a_schedule_plays_by_it(tmp_path: Path) -> None:
    folder, _ = run(tmp_path / "r", method="tcod-f2b", **{"eval.every": 0})
    assert [r["depth"] for r in lines(folder, "iteration")] == [1, 2]


def test_a_reference_is_loaded_for_the_methods_that_read_one(tmp_path: Path) -> None:
    given = {"reference": {"model": "initial"}, "train.iterations": 1, "eval.every": 0}
    folder, said = run(tmp_path / "r", method="exopd", **given)
    assert not any("reads no reference" in line for line in said)
    [first, *_] = Store(folder / "store").read("iter-000001")
    assert {"tiny:32x2", "reference:initial"} <= first.scores.keys()
    other, said = run(tmp_path / "other", **made(folder), **given)
    assert "note: method 'opd-exact' reads no reference, so 'initial' is not loaded" in said
    [first, *_] = Store(other / "store").read("iter-000001")
    assert not any(name.startswith("reference") for name in first.scores)


def test_a_reference_of_another_vocabulary_is_refused_as_such(tmp_path: Path) -> None:
    other, _ = run(tmp_path / "other", tokenizer_vocab=270, **{"train.iterations": 0, "eval.every": 0})
    with pytest.raises(UserError, match=r"student and reference '.*' have different vocabularies .* choose a reference"):
        run(tmp_path / "r", method="exopd", reference={"model": str(other / "teacher")})
    assert not (tmp_path / "r" / "metrics.jsonl").exists()


def test_a_reward_only_run_needs_no_teacher(tmp_path: Path) -> None:
    folder, _ = run(tmp_path / "r", method="grpo", teacher=None, **{"train.rollouts": 2, "eval.every": 0})
    assert "teacher" not in json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("own", ["initial", "ema", "live"])
def test_the_teacher_may_be_the_students_own_weights_with_the_plan_in_view(tmp_path: Path, own: str) -> None:
    folder, _ = run(tmp_path / "r", teacher={"model": own, "privileged": True}, **{"eval.every": 0})
    assert "teacher" not in json.loads((folder / "summary.json").read_text())
    assert own in Store(folder / "store").read("iter-000001")[0].scores
    assert lines(folder, "iteration")[0]["kl"] > 0
    turn = Store(folder / "store").read("iter-000001")[0].turns[0]
    assert turn.teacher_prompt_ids is not None
    assert len(turn.teacher_prompt_ids) > len(turn.prompt_ids)


def test_the_student_as_it_was_is_no_other_policy_before_the_first_update(tmp_path: Path) -> None:
    held = {"method": {"divergence": "rkl", "rl": "grpo"}, "train.rollouts": 2, "eval.every": 0}
    folder, _ = run(tmp_path / "r", teacher={"model": "initial"}, **held)
    first = lines(folder, "iteration")[0]
    assert abs(first["kl"]) < 1e-6
    assert abs(first["kd_abs"]) < 1e-6


@pytest.mark.parametrize("method", ["opd", "opd-exact"])
def test_a_teacher_that_says_what_the_student_says_is_refused_before_the_first_update(tmp_path: Path, method: str) -> None:
    same = made(run(tmp_path / "one", **{"train.iterations": 0, "eval.every": 0})[0])
    same["teacher.model"] = same["student.model"]
    name = "divergence 'rkl'" if method == "opd-exact" else "signal 'opd'"
    with pytest.raises(UserError, match=f"{name} has no effect: at iteration 1 .* teacher '.*student' .*teacher.privileged"):
        run(tmp_path / "r", **same, method=method, **{"eval.every": 0})
    assert not lines(tmp_path / "r", "iteration")


def test_back_to_front_replays_the_expert_without_loss(tmp_path: Path) -> None:
    folder, _ = run(tmp_path / "r", schedule={"kind": "tcod-b2f", "every": 1}, **{"eval.every": 0})
    played = Store(folder / "store").read("iter-000001")
    assert any(t.prefix_turns for t in played)
    for t in played:
        assert [turn.author for turn in t.turns[: t.prefix_turns]] == ["expert"] * t.prefix_turns
        assert not t.stream().is_action[[k < t.prefix_turns for k in t.stream().turn]].any()


def test_front_to_back_cuts_by_depth_and_says_so(tmp_path: Path) -> None:
    folder, _ = run(tmp_path / "r", schedule={"kind": "tcod-f2b", "start": 1, "every": 1}, **{"eval.every": 0})
    assert [r["depth"] for r in lines(folder, "iteration")] == [2, 3]
    assert {len(t.turns) for t in Store(folder / "store").read("iter-000001")} <= {1, 2}


def test_minibatches_and_epochs_are_optimizer_steps(tmp_path: Path) -> None:
    one, _ = run(tmp_path / "one", **{"eval.every": 0})
    many, _ = run(tmp_path / "many", **{"eval.every": 0, "train.minibatches": 3, "train.epochs": 2})
    assert lines(one, "iteration")[0]["kl"] == lines(many, "iteration")[0]["kl"]
    assert lines(one, "iteration")[1]["kl"] != lines(many, "iteration")[1]["kl"]


def test_an_environment_that_fails_now_and_then_loses_its_episodes_only(tmp_path: Path) -> None:
    models, _ = run(tmp_path / "ok", **{"train.iterations": 0, "eval.every": 0})
    folder, said = run(
        tmp_path / "r",
        **made(models),
        **{"env.options": {"fault": "raise", "fault_at": 2, "fault_seeds": list(range(0, 10_000, 2))}, "train.tasks": 12},
    )
    for record in lines(folder, "iteration"):
        assert 0 < record["left_out"] < 12
        assert record["stop_reasons"]["env_error"] == record["left_out"]
    assert any("episode(s) lost" in line and "broken pipe" in line for line in said)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"teacher": None}, ["opd-exact", "no teacher"]),
        ({"method": "sod"}, ["train.rollouts", "grpo"]),
        ({"student.sft": None}, ["tiny:32x1", "sft"]),
        ({"student": {"model": "initial"}}, ["student.model", "initial"]),
        ({"student.model": "tiny:33x1"}, ["tiny:33x1"]),
        ({"teacher": {"model": "./nowhere"}}, ["./nowhere"]),
        ({"teacher": {"model": "pip:no-such-package"}}, ["pip:no-such-package", "pip install"]),
        ({"env.id": "lab/Gues-v0"}, ["lab/Gues-v0", "lab/Guess-v0"]),
        ({"env.split": "trian"}, ["trian", "train"]),
        ({"eval.tasks": 100_000}, ["100000", "test"]),
        ({"method": "sodd"}, ["sodd", "sod"]),
        ({"schedule": "tcod-fb2"}, ["tcod-fb2", "tcod-f2b"]),
        ({"env.module": "no_such_module"}, ["no_such_module"]),
        ({"student.sft.stop_at_success": 0.5}, ["stop_at_success", "eval_every"]),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(tmp_path: Path, changes: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(UserError) as error:
        run(tmp_path / "r", **changes)
    for name in names:
        assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_privileged_teacher_needs_a_plan(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lab/Mute-v0"):
        run(tmp_path / "r", **{"env.id": "lab/Mute-v0", "teacher": {"model": "initial", "privileged": True}})


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    folder, _ = run(tmp_path / "r", **{"eval.every": 0})
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="--resume"):
        run(folder, **{"eval.every": 0})
    with pytest.raises(UserError, match=r"train\.lr was 0\.001, is 0\.5"):
        api.train(BASE, out=folder, resume=True, say=print, **{"eval.every": 0, "train.lr": 0.5})
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "r")
    try:
        with pytest.raises(UserError, match="another process"):
            run(tmp_path / "r")
    finally:
        journal.close()


def test_a_teacher_of_another_vocabulary_is_refused_by_name(tmp_path: Path) -> None:
    one, _ = run(tmp_path / "one", **{"train.iterations": 0, "eval.every": 0})
    other, _ = run(tmp_path / "other", tokenizer_vocab=270, **{"train.iterations": 0, "eval.every": 0})
    with pytest.raises(UserError, match="different vocabularies"):
        run(tmp_path / "r", student={"model": str(one / "student"), "sft": SFT}, teacher={"model": str(other / "teacher")})
    assert not (tmp_path / "r" / "metrics.jsonl").exists()  # before the student was warmed up


def test_a_teacher_with_too_short_a_context_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    short, _ = run(tmp_path / "short", **{"env.max_context": 64, "train.iterations": 0, "eval.every": 0})
    with pytest.raises(
        UserError, match=r"takes 64 tokens, and the student's contexts may reach 128; set env\.max_context to 64"
    ):
        run(tmp_path / "r", teacher={"model": str(short / "teacher")})
    assert not (tmp_path / "r" / "metrics.jsonl").exists()


def test_a_tiny_student_takes_the_tokenizer_of_a_teacher_that_has_one(tmp_path: Path) -> None:
    other, _ = run(tmp_path / "other", tokenizer_vocab=270, **{"train.iterations": 0, "eval.every": 0})
    folder, _ = run(tmp_path / "r", teacher={"model": str(other / "teacher")}, **{"eval.every": 0})
    assert not (folder / "tokenizer").exists()
    name = "tokenizer.json"
    assert (folder / "student" / name).read_bytes() == (other / "teacher" / name).read_bytes()
    api.train(
        BASE, out=folder, resume=True, say=print, teacher={"model": str(other / "teacher")}, **{"eval.every": 0}
    )  # and again from its own folder
    alone = api.sft(BASE, role="student", out=tmp_path / "alone", say=print, teacher={"model": str(other / "teacher")})
    assert (alone / name).read_bytes() == (other / "teacher" / name).read_bytes()


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_role_that_goes_over_the_edge_in_its_last_update_is_refused(tmp_path: Path, role: str) -> None:
    with pytest.raises(UserError, match=rf"SFT step 1 of the {role} left .* not finite.* Lower {role}\.sft\.lr"):
        run(tmp_path / "r", **{f"{role}.sft": {**SFT, "steps": 1, "lr": 1e15, "warmup": 0}})


def test_a_student_that_goes_over_the_edge_in_the_last_iteration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"iteration 1 left .* not finite.*Lower train\.lr"):
        run(tmp_path / "r", **{"train.iterations": 1, "train.lr": 1e15, "eval.every": 0})
    assert not (tmp_path / "r" / "final").exists()


def test_a_model_without_finite_log_probs_is_not_measured(tmp_path: Path) -> None:
    models, _ = run(tmp_path / "ok", **{"train.iterations": 0, "eval.every": 0})
    weights = load_file(models / "student" / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    broken = shutil.copytree(models / "student", tmp_path / "broken")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError):
        run(tmp_path / "r", student={"model": str(broken)}, teacher=None, method="grpo", **{"train.rollouts": 2})


def test_a_report_that_fails_does_not_take_the_summary_with_it(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "report").touch()  # a file where its folder should be
    with pytest.raises(UserError, match="report could not be written"):
        run(tmp_path / "r", **{"train.iterations": 0, "eval.every": 0})
    assert "after" in json.loads((tmp_path / "r" / "summary.json").read_text())
    (tmp_path / "r" / "report").unlink()
    api.train(BASE, out=tmp_path / "r", resume=True, say=print, **{"train.iterations": 0, "eval.every": 0})
    assert (tmp_path / "r" / "report" / "index.html").is_file()


def test_an_environment_that_always_fails_ends_the_run_with_its_error(tmp_path: Path) -> None:
    folder, _ = run(tmp_path / "ok", **{"train.iterations": 0, "eval.every": 0})
    with pytest.raises(UserError, match="broken pipe to the game"):
        run(
            tmp_path / "r",
            **made(folder),
            **{"env.options": {"fault": "raise", "fault_at": 1}},
        )


def test_the_clock_of_the_log_goes_on_when_a_trainer_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], undrawn: None
) -> None:
    lost: list[bool] = []

    def opened(student: CausalLM, config: Experiment) -> Trainer:
        if not lost:
            lost.append(True)
            time.sleep(4)
            raise TrainerLost("it was lost")
        return LocalTrainer(student, config)

    train(Experiment.model_validate(BASE), tmp_path / "r", trainer=opened)
    told = [
        line.split()[0].split(":")
        for line in capsys.readouterr().out.splitlines()
        if line[:6].replace(":", "").strip().isdigit()
    ]
    clock = [60 * int(minutes) + int(seconds) for minutes, seconds in told]
    assert clock == sorted(clock)
    assert clock[-1] >= 4
