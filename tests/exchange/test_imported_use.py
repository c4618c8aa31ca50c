"""What can be done with imported conversations, and what is refused: they are scored and imitated, and never replayed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentdistill import api
from agentdistill.cli import main
from agentdistill.config import override
from agentdistill.errors import UserError
from agentdistill.store import Store
from tests.training.scored_run import RUN, iterations, measured

pytestmark = pytest.mark.usefixtures("undrawn")  # nobody looks at the runs' pictures


def quiet(_: str) -> None:
    """Takes lines of progress."""


@pytest.fixture(scope="module")
def talks(guess_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Expert conversations on the guessing game, of eight tasks, imported with the run's own tokenizer."""
    return bring(tmp_path_factory.mktemp("talks"), guess_run)


def bring(folder: Path, run: Path, **told: float) -> Path:
    rows = []
    for n in range(8):
        said = [{"role": "user", "content": "0 to 15"}, {"role": "assistant", "content": "8"}]
        said += [{"role": "user", "content": "lower"}, {"role": "assistant", "content": str(n)}]
        rows.append({"messages": said, "task_id": f"t{n}", "success": n % 2 == 0, **told})
    (folder / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = folder / "imported"
    api.import_trajectories(folder / "talks.jsonl", "chat", out=out, tokenizer=str(run / "final"), say=quiet)
    return out


@pytest.fixture
def copy(talks: Path, tmp_path: Path) -> Path:
    """The import, to be changed."""
    return Path(shutil.copytree(talks, tmp_path / "talks"))


def offline(talks: Path, run: Path, **changes: Any) -> dict[str, Any]:
    """An experiment on the imported conversations."""
    raw = {
        **RUN, "student": {"model": str(run / "student")}, "rollouts": {"store": str(talks)},
        "train": {"iterations": 2, "tasks": 8, "lr": 1e-2},
    }  # fmt: skip
    return override(raw, changes)


def test_they_are_scored_like_any_others(copy: Path, guess_run: Path):
    api.score(copy, str(guess_run / "teacher"), name="strong", entropy=True, say=quiet)
    for t in Store(copy / "store").trajectories():
        assert len(t.scores["strong"].logprobs) == t.n_action_tokens
        assert np.isfinite(t.scores["strong"].logprobs).all()
        assert t.imported


def test_they_are_compared_by_success_and_not_by_a_reward_that_nobody_told(talks: Path):
    found = api.compare(talks, f"{talks}:imported", say=quiet)
    assert (found.tasks, found.difference) == (8, 0.0)
    with pytest.raises(UserError, match=r"'imported/000000' has no reward that could be compared"):
        api.compare(talks, talks, measure="reward", say=quiet)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("replay TALKS", "trajectory 'imported/000000' was imported, so it cannot be replayed: no environment answers for it"),
        (
            "score TALKS --what-if method=sod",
            "cannot be judged by a method: what its sampler thought of its tokens is not known",
        ),
    ],
)
def test_what_needs_an_environment_or_a_sampler_is_refused_in_a_sentence(words: str, message: str, talks: Path, capsys: Any):
    before = sorted(talks.rglob("*"))
    assert main([word.replace("TALKS", str(talks)) for word in words.split()]) == 1
    assert message in capsys.readouterr().err
    assert sorted(talks.rglob("*")) == before


def test_no_branch_leaves_them(talks: Path, chat: Any, make_rollout: Any):
    from agentdistill.branch import branch
    from agentdistill.policies.base import SamplingParams

    parents = Store(talks / "store").read("imported")
    with pytest.raises(UserError, match=r"was imported, so it cannot be branched from"):
        branch(make_rollout(chat, lambda episode, turn: "1"), parents, 1, SamplingParams())


def test_a_student_imitates_them(talks: Path, guess_run: Path, tmp_path: Path):
    raw = offline(talks, guess_run, method="dasd", **{"train.iterations": 8})
    del raw["teacher"]
    measured(raw, tmp_path / "run")
    losses = [record["loss"] for record in iterations(tmp_path / "run")]
    assert losses[-1] < 0.7 * losses[0]


def test_a_teachers_distributions_are_learnt_on_their_text(talks: Path, guess_run: Path, tmp_path: Path):
    raw = offline(talks, guess_run, method="fkl", teacher={"model": str(guess_run / "teacher")})
    measured(raw, tmp_path / "run")
    first, last = iterations(tmp_path / "run")
    assert last["kl"] < first["kl"]
    assert first["drift"] is None  # nobody knows what its sampler thought


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "opd"}, "signal 'opd' is of the student's own samples, and 8 episodes in the store"),
        ({"method": "vopd"}, "signal 'opd' is of the student's own samples"),
        ({"method": {"preset": "fkl", "rl": "grpo"}}, "have no reward that was told"),
        ({"method": "fkl", "train.old_logprobs": "sampler"}, "train.old_logprobs 'sampler' are log-probs of the student's own"),
    ],
)
def test_they_are_not_taken_for_the_students_own_samples(
    changes: dict[str, Any], message: str, talks: Path, guess_run: Path, tmp_path: Path
):
    raw = offline(talks, guess_run, teacher={"model": str(guess_run / "teacher")}, **changes)
    with pytest.raises(UserError) as caught:
        api.train(raw, out=tmp_path / "run", say=quiet)
    assert message in str(caught.value)


def test_not_even_with_a_reward(guess_run: Path, tmp_path: Path):
    raw = offline(bring(tmp_path, guess_run, reward=1.0), guess_run, method={"preset": "fkl", "rl": "grpo"})
    with pytest.raises(UserError, match=r"rl 'grpo' is of the student's own samples, and 8 episodes .* were imported"):
        api.train(raw, out=tmp_path / "run", say=quiet)


def test_the_students_own_samples_are_not_imitated(guess_run: Path, tmp_path: Path):
    raw = offline(guess_run, guess_run, method="dasd", **{"train.tasks": 3})
    del raw["teacher"]
    with pytest.raises(UserError, match=r"12 of 12 episodes in the store .* were played here; take a store of imported"):
        api.train(raw, out=tmp_path / "run", say=quiet)
