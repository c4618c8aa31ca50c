"""Training from a store: no teacher in memory, the stored numbers in its place, and the gradient that it would have given."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from agentdistill import api
from agentdistill.cli import main
from agentdistill.errors import UserError
from agentdistill.policies.base import ScoreRequest
from agentdistill.policies.top import TopDistribution
from agentdistill.signals import DIVERGENCES
from agentdistill.store import Store
from agentdistill.store_scores import Identity
from agentdistill.training.score import sequences_of, trainable
from agentdistill.training.stored_scorer import StoredScorer
from agentdistill.trajectory import Scores, Trajectory
from tests.training.scored_run import RUN, iterations


def quiet(_: str) -> None:
    """Takes lines of progress."""


def offline(run: Path, **changes: Any) -> dict[str, Any]:
    """The run's experiment again, from its own store: the student as it was, and a teacher who is nowhere to be found."""
    out: dict[str, Any] = {
        **RUN, "student": {"model": str(run / "student")}, "teacher": {"model": "tiny:32x2"},
        "rollouts": {"store": str(run), "scorer": "tiny:32x2", "batches": ["iter-000001"]},
        "train": {"iterations": 1, "tasks": 3},
    }  # fmt: skip
    from agentdistill.config import override

    return override(out, changes)


# The stored answers


@pytest.fixture(scope="module")
def answered(play: Callable[..., list[Trajectory]]) -> list[Trajectory]:
    """Windowed episodes of several segments with a score for every token, its number."""
    rows = trainable(play(0, privileged=True))
    for trajectory in rows:
        trajectory.scores["s"] = Scores(-np.arange(trajectory.n_action_tokens, dtype=np.float64))
    return rows


def cached(rows: list[Trajectory]) -> StoredScorer:
    out = StoredScorer("s", Identity("m", "w", "v"))
    out.hold(rows)
    return out


def test_every_segment_gets_its_own_part_of_its_trajectorys_scores(answered: list[Trajectory]) -> None:
    sequences = sequences_of(answered)
    assert len(sequences) > len(answered)
    for view in ("teacher", "student"):
        requests = [s.teacher if view == "teacher" else ScoreRequest(s.ids.tolist(), s.targets.tolist()) for s in sequences]
        given: dict[int, list[float]] = {}
        for sequence, answer in zip(sequences, cached(answered).score(requests), strict=True):
            assert len(answer.logprobs) == len(sequence.targets)
            given.setdefault(sequence.trajectory, []).extend(answer.logprobs.tolist())
        assert [given[i] for i in range(len(answered))] == [t.scores["s"].logprobs.tolist() for t in answered]


def test_tokens_that_are_not_stored_get_no_answer(answered: list[Trajectory]) -> None:
    request = sequences_of(answered)[0].teacher
    with pytest.raises(UserError, match="of the store's own episodes, and another sequence was to be scored"):
        cached(answered).score([ScoreRequest([*request.ids, 1], request.targets)])
    with pytest.raises(UserError, match="another sequence"):
        cached(answered[:1]).score([sequences_of(answered)[-1].teacher])


@pytest.mark.parametrize("n", [0, 1])
def test_a_list_of_scores_of_another_length_is_neither_all_tokens_nor_one_for_all(n: int, answered: list[Trajectory]) -> None:
    whole = answered[1].scores["s"]
    answered[1].scores["s"] = Scores(whole.logprobs[:n])
    try:
        with pytest.raises(
            UserError, match=rf"'{answered[1].id}' has \d+ student tokens and {n} scores by 's'; score it again"
        ):
            cached(answered)
        del answered[1].scores["s"]
        with pytest.raises(UserError, match=rf"'{answered[1].id}' has no scores by 's'"):
            cached(answered)
    finally:
        answered[1].scores["s"] = whole


@pytest.mark.parametrize("kind", ["rkl", "fkl", "jsd"])
@pytest.mark.parametrize("tail", ["renormalise", "bucket"])
def test_the_stored_likeliest_ids_are_all_that_a_divergence_on_the_teachers_support_reads(kind: str, tail: str) -> None:
    student, teacher = (
        torch.log_softmax(3 * torch.randn(9, 40, generator=torch.Generator().manual_seed(s)), -1) for s in (0, 1)
    )
    top = teacher.topk(8, -1)
    stored = TopDistribution(top.indices, top.values.double(), 40).logprobs(slice(None))
    torch.testing.assert_close(stored.exp().sum(-1), torch.ones(9))
    for k in (3, 8):
        choice = DIVERGENCES.resolve({"kind": kind, "support": "teacher", "k": k, "tail": tail})
        assert choice.top == k
        torch.testing.assert_close(choice(student, stored), choice(student, teacher), atol=1e-5, rtol=1e-5)
    whole = DIVERGENCES.resolve(kind)
    assert whole.top is None
    assert (whole(student, stored) - whole(student, teacher)).abs().max() > 1e-3
    assert DIVERGENCES.resolve({"kind": kind, "support": "student", "k": 3}).top is None
    hot = {"kind": kind, "support": "teacher", "k": 3, "temperature": 2.0}
    assert DIVERGENCES.resolve({**hot, "tail": "bucket"}).top is None
    choice = DIVERGENCES.resolve({**hot, "tail": "renormalise"})
    torch.testing.assert_close(choice(student, stored), choice(student, teacher), atol=1e-5, rtol=1e-5)


def test_ids_beyond_the_students_head_are_cut_off() -> None:
    teacher = torch.log_softmax(torch.randn(4, 12, generator=torch.Generator().manual_seed(0)), -1)
    top = teacher.topk(12, -1)
    found = TopDistribution(top.indices, top.values.double(), 10).logprobs(torch.tensor([2, 0]))
    torch.testing.assert_close(found, torch.log_softmax(teacher[[2, 0], :10], -1))


# A run


def test_the_first_iteration_is_the_one_that_the_teacher_would_have_given(guess_run: Path, tmp_path: Path) -> None:
    made = {role: {"model": str(guess_run / role), "sft": None} for role in ("student", "teacher")}
    online = api.train(
        {**RUN, "train": {**RUN["train"], "iterations": 1}}, out=tmp_path / "online", say=quiet,
        **{f"{role}.{key}": value for role in ("student", "teacher") for key, value in made[role].items()},
    ).folder  # fmt: skip
    shutil.copytree(online / "store", tmp_path / "kept" / "store")
    stored = {"rollouts.store": str(tmp_path / "kept"), "rollouts.scorer": str(guess_run / "teacher"), "teacher": None}
    folder = api.train(offline(guess_run, **stored), out=tmp_path / "offline", say=quiet).folder
    (theirs,), (ours,) = iterations(online), iterations(folder)
    for name in ("loss", "grad_norm", "kd_abs", "rl_abs", "log_ratio", "weight_by_step", "success", "action_tokens"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6, atol=1e-9, err_msg=name)
    a, b = (load_file(each / "final" / "model.safetensors") for each in (online, folder))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-6)
    assert (ours["passes"], ours["drift"]) == (1.0, pytest.approx(0, abs=1e-5))
    assert not (folder / "teacher").exists()
    assert "eval-teacher" not in Store(folder / "store").batches()
    assert not any(batch.startswith("iter") for batch in Store(folder / "store").batches())


def test_stored_likeliest_ids_give_the_loss_and_gradient_that_the_teacher_gave_by_the_command_alone(
    guess_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Play and train with the teacher; score the store; move the teacher away; train from the store: the same first update."""
    teacher = Path(shutil.copytree(guess_run / "teacher", tmp_path / "teacher"))
    method = {"preset": "fkl", "divergence": {"support": "teacher", "k": 5, "tail": "bucket"}}
    about = {
        **RUN, "method": method, "student": {"model": str(guess_run / "student")}, "teacher": {"model": str(teacher)},
        "train": {**RUN["train"], "iterations": 1},
    }  # fmt: skip
    stored = {**about, "rollouts": {"store": str(tmp_path / "online"), "scorer": "strong"}}
    for name, each in (("online", about), ("offline", stored)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(each))
    assert main(["train", str(tmp_path / "online.yaml"), "--out", str(tmp_path / "online")]) == 0
    capsys.readouterr()
    assert main(["score", str(tmp_path / "online"), "--scorer", f"strong={teacher}", "--top-k", "5"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"kB on disk \([\d.]+ bytes/token\): .*topk_ids .*topk_logprobs", said), said
    shutil.rmtree(teacher)
    assert main(["train", str(tmp_path / "offline.yaml"), "--out", str(tmp_path / "offline")]) == 0
    (theirs,), (ours,) = iterations(tmp_path / "online"), iterations(tmp_path / "offline")
    for name in ("loss", "grad_norm", "kd_abs", "log_ratio", "action_tokens"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name
    other = tmp_path / "elsewhere.yaml"
    other.write_text(yaml.safe_dump({**stored, "teacher": {"model": str(guess_run / "teacher")}}))
    assert main(["train", str(other), "--out", str(tmp_path / "refused")]) == 1
    assert "and scores 'strong' of the store" in capsys.readouterr().err


def test_added_scores_teach_and_the_teachers_folder_may_be_gone(guess_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(guess_run, tmp_path / "run"))
    gone = run.rename(tmp_path / "elsewhere") / "teacher"
    api.score(gone.parent, str(gone), name="strong", top_k=6, say=quiet)
    shutil.rmtree(gone)
    changes = {
        "rollouts": {"store": str(gone.parent), "scorer": "strong", "batches": []}, "teacher.model": str(gone),
        "train.iterations": 12, "train.tasks": 6, "train.lr": 5e-4,
    }  # fmt: skip
    exact = {"preset": "fkl", "divergence": {"support": "teacher", "k": 6, "tail": "bucket"}}
    for name, method in {"log_ratio_abs": "lightning", "loss": exact}.items():
        folder = tmp_path / name
        records = iterations(api.train(offline(gone.parent, **changes, method=method), out=folder, say=quiet).folder)
        assert records[-1][name] < 0.8 * records[0][name]
        assert abs(records[-1]["drift"]) > 1e-3
        assert records[-1]["passes"] == 12.0


class Stopped(Exception):
    """What ends a session in the middle."""


def test_a_stopped_run_goes_on_to_the_same_numbers_with_the_files_it_began_with(guess_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(guess_run, tmp_path / "run"))
    changes = {"rollouts.batches": [], "train.iterations": 7, "train.tasks": 2, "train.checkpoint_every": 2}
    whole = api.train(offline(run, **changes), out=tmp_path / "whole", say=quiet).folder

    def stop(line: str) -> None:
        if line.startswith("iteration 5/7"):
            raise Stopped

    with pytest.raises(Stopped):
        api.train(offline(run, **changes), out=tmp_path / "cut", say=stop)
    shutil.copytree(tmp_path / "cut", tmp_path / "other")
    store = Store(run / "store")
    store.write("iter-000009", store.read("iter-000001"))  # the source goes on: what is new is not looked at
    folder = api.train(offline(run, **changes), out=tmp_path / "cut", resume=True, say=quiet).folder
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert (folder / "final" / "model.safetensors").read_bytes() == (whole / "final" / "model.safetensors").read_bytes()
    store.write("iter-000002", store.read("iter-000001"))
    with pytest.raises(UserError, match=r"iter-000002.parquet' has changed since the run began"):
        api.train(offline(run, **changes), out=tmp_path / "other", resume=True, say=quiet)


def test_episodes_sampled_at_another_temperature_are_counted_once_each(guess_run: Path, tmp_path: Path) -> None:
    from agentdistill.config import RolloutsSection
    from agentdistill.training.stored import StoredEpisodes

    rows = Store(guess_run / "store").read("iter-000001")
    for trajectory in rows[:2]:
        trajectory.temperature = 0.7
    Store(tmp_path / "store").write("iter-000001", rows)
    assert StoredEpisodes(RolloutsSection(store=str(tmp_path)), 1, 0).survey.warm == 2


def test_a_store_of_episodes_without_student_tokens_is_refused_by_name(guess_run: Path, tmp_path: Path) -> None:
    from agentdistill.config import RolloutsSection
    from agentdistill.training.stored import StoredEpisodes

    rows = Store(guess_run / "store").read("iter-000001")
    for trajectory in rows:
        trajectory.turns = []
        trajectory.scores.clear()
    Store(tmp_path / "store").write("iter-000001", rows)
    with pytest.raises(UserError, match=r"has no episode that can be trained on in iter-000001; look at the stop reasons"):
        StoredEpisodes(RolloutsSection(store=str(tmp_path)), 1, 0).survey  # noqa: B018


def test_every_pass_takes_every_group_once_and_whole(guess_run: Path) -> None:
    from agentdistill.config import RolloutsSection
    from agentdistill.training.stored import StoredEpisodes

    section = RolloutsSection(store=str(guess_run), scorer="tiny:32x2")
    stored = StoredEpisodes(section, 2, 0)
    assert stored.batches == ["iter-000001", "iter-000002"]
    assert (stored.survey.episodes, len(stored.survey.units)) == (12, 6)
    taken = [stored.take(iteration) for iteration in range(1, 7)]
    for rows in taken:
        assert [t.id for t in rows] == sorted(t.id for t in rows)  # as they stand in the store
        assert Counter(t.group for t in rows) == {0: 2, 1: 2}
        assert all(a.seed == b.seed for a, b in zip(rows[::2], rows[1::2], strict=True))
    passes = [[t.id for rows in taken[i : i + 3] for t in rows] for i in (0, 3)]
    assert len(set(passes[0])) == len(passes[0]) == 12
    assert sorted(passes[0]) == sorted(passes[1])
    assert passes[0] != passes[1]
    assert [t.id for t in stored.take(2)] == [t.id for t in taken[1]]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "full distributions": ({"method": "gkd"}, r"divergence 'jsd' needs the teacher's full distributions, .* 'tiny:32x2'"),
    "a baseline's": ({"method": "vopd"}, r"baseline 'vopd' needs the teacher's full distributions"),
    "a selection's": ({"method": {"preset": "opd", "selection": "tip"}}, r"selection 'tip' needs the teacher's full distr"),
    "a top-k": (
        {"method": {"preset": "rkl", "divergence": {"support": "teacher", "k": 4}}},
        r"needs the teacher's 4 likeliest ids, .* has 0 by",
    ),
    "a reference": ({"method": "exopd"}, "needs a reference's scores, and the experiment has no reference section"),
    "a reference's distributions": (
        {"method": "adpa", "rollouts.scorer": "", "rollouts.reference": "tiny:32x2"},
        "rollouts.reference 'tiny:32x2' gives stored",
    ),
    "a schedule": ({"schedule": "tcod-f2b"}, "schedule 'tcod-f2b' decides how episodes are played"),
    "another teacher": ({"teacher.model": "org/other"}, r"teacher is 'org/other', and scores 'tiny:32x2' .* by 'tiny:32x2'"),
    "own weights": ({"teacher.model": "live"}, "no teacher is loaded, and teacher are the student's own weights"),
    "sft": ({"teacher.sft": {}}, "no teacher is loaded, and teacher has an sft section"),
    "nobody": ({"rollouts.scorer": "tiny:32x3"}, r"rollouts.scorer is 'tiny:32x3', and the store .* did you mean 'tiny:32x2'"),
    "no store": ({"rollouts.store": "nowhere"}, "rollouts.store 'nowhere' holds no stored episodes"),
    "no batch": ({"rollouts.batches": ["iter-1"]}, "rollouts.batches names 'iter-1', which"),
    "too few": ({"train.tasks": 4}, "train.tasks is 4, and the store .* has 3 groups"),
    "reported tasks": (
        {"rollouts.batches": ["eval-after"], "rollouts.scorer": "", "teacher": None, "method": "grpo"}, "held out",
    ),
    "mixed": ({"mixed": {"most": 1}}, "mixed plays episodes, and rollouts.store has played ones"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_a_store_is_refused_before_anything_is_trained(what: str, guess_run: Path, tmp_path: Path) -> None:
    changes, said = REFUSED[what]
    with pytest.raises(UserError, match=said):
        api.train(offline(guess_run, **changes), out=tmp_path / "r", say=quiet)
    assert not (tmp_path / "r" / "metrics.jsonl").exists()


def test_a_student_of_another_vocabulary_is_refused(guess_run: Path, tmp_path: Path) -> None:
    sft = {"demonstrations": 2, "steps": 1}
    other = offline(guess_run, student={"model": "tiny:32x1", "sft": sft}, tokenizer_vocab=262)
    with pytest.raises(UserError, match=r"student 'tiny:32x1' and scorer 'tiny:32x2' of the store .* have different vocab"):
        api.train(other, out=tmp_path / "r", say=quiet)


def test_a_score_that_is_lost_or_not_finite_is_told_before_the_first_iteration(guess_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(guess_run, tmp_path / "run"))
    store = Store(run / "store")
    rows = store.read("iter-000001")
    rows[4].scores["tiny:32x2"].logprobs[0] = float("nan")
    store.write("iter-000001", rows)
    with pytest.raises(UserError, match="trajectory 'iter-000001/0004' has a score by 'tiny:32x2' that is not finite"):
        api.train(offline(run), out=tmp_path / "a", say=quiet)
    rows[4].scores["tiny:32x2"].logprobs = np.empty(0)
    store.write("iter-000001", rows)
    with pytest.raises(UserError, match=r"trajectory 'iter-000001/0004' has .* and 0 scores by"):
        api.train(offline(run), out=tmp_path / "b", say=quiet)


def test_a_method_that_compares_rollouts_is_refused_on_groups_of_one(guess_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(guess_run, tmp_path / "run"))
    store = Store(run / "store")
    store.write("iter-000001", store.read("iter-000001")[::2])
    with pytest.raises(UserError, match="method 'sod' compares rollouts of one task, and 3 of 3 groups in the store"):
        api.train(offline(run), out=tmp_path / "r", say=quiet)


def test_a_top_k_that_only_some_episodes_have_is_not_enough(guess_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(guess_run, tmp_path / "run"))
    api.score(run, str(run / "teacher"), name="tiny:32x2", top_k=4, batch="iter-000001", say=quiet)
    method = {"preset": "rkl", "divergence": {"support": "teacher", "k": 4}}
    both = offline(run, **{"method": method, "rollouts.batches": [], "train.tasks": 6})
    with pytest.raises(UserError, match=r"needs the teacher's 4 likeliest ids, and the store .* has 0 by 'tiny:32x2'"):
        api.train(both, out=tmp_path / "r", say=quiet)


def test_a_teacher_may_be_loaded_to_score_stored_episodes_anew(guess_run: Path, tmp_path: Path) -> None:
    changes = {"rollouts.scorer": "", "teacher.model": str(guess_run / "teacher"), "method": "gkd"}
    (record,) = iterations(api.train(offline(guess_run, **changes), out=tmp_path / "r", say=quiet).folder)
    assert record["kl"] > 0 < record["grad_norm"]


def test_a_stored_reference_is_read_beside_the_stored_teacher(guess_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(guess_run, tmp_path / "run"))
    api.score(run, str(run / "student"), name="base", say=quiet)
    stored = offline(run, **{"rollouts.reference": "base", "method": "exopd"})
    loaded = offline(run, **{"reference": {"model": str(run / "student")}, "method": "exopd"})
    (a,), (b,) = (iterations(api.train(each, out=tmp_path / n, say=quiet).folder) for n, each in (("a", stored), ("b", loaded)))
    assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
    assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-6)


def test_a_dry_run_says_what_there_is_in_the_store(guess_run: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(offline(guess_run, teacher=None)))
    assert main(["train", str(path), "--dry-run"]) == 0
    found = yaml.safe_load(capsys.readouterr().out.partition("---\n")[2])["resolved"]
    assert found["stored"]["episodes"] == found["episodes"] == 6
    assert found["stored"]["scorers"]["teacher"]["model"] == "tiny:32x2"
