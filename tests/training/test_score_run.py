"""`agentdistill score` on a run's folder: killed and gone on with, refused in one sentence, and what it prints."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from agentdistill import api
from agentdistill.cli import main
from agentdistill.errors import UserError
from agentdistill.policies.load import load_model
from agentdistill.policies.tiny import train_tokenizer
from agentdistill.store import Store
from agentdistill.training.state import save_model

BATCHES = 40


@pytest.fixture
def run(guess_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, which may be changed."""
    return Path(shutil.copytree(guess_run, tmp_path / "run"))


def quiet(_: str) -> None:
    """Takes lines of progress."""


def test_a_teacher_gives_the_numbers_it_gave_in_training(run: Path) -> None:
    before = {file: file.read_bytes() for file in (run / "store").glob("*.*")}
    said: list[str] = []
    added = api.score(run, str(run / "teacher"), name="again", entropy=True, say=said.append)
    for batch in ("iter-000001", "iter-000002"):
        for trajectory in api.load_run(run).read(batch):
            own, again = trajectory.scores["tiny:32x2"], trajectory.scores["again"]
            assert np.array_equal(own.logprobs, again.logprobs)
            assert np.array_equal(np.asarray(own.entropy), np.asarray(again.entropy))
    assert {file: file.read_bytes() for file in before} == before
    assert added.episodes == sum(added.batches.values()) == sum(len(api.load_run(run).read(b)) for b in added.batches)
    assert said[0].startswith("eval-after: 4 episodes from 0, ")
    assert "tokens/s" in said[0]
    assert "bytes/token): id" in said[-1]
    assert "logprobs" in said[-1]


def test_a_killed_scoring_goes_on_where_it_was_without_a_row_twice_or_half(run: Path) -> None:
    store = Store(run / "store")
    episodes = store.read("iter-000001", ()) * 2
    for n in range(BATCHES):
        store.write(f"more-{n:03d}", [dataclasses.replace(t, id=f"{n}/{i}") for i, t in enumerate(episodes)])
    words = [sys.executable, "-m", "agentdistill.cli", "score", str(run), "--scorer", f"s={run / 'teacher'}", "--top-k", "4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    folder = store.scores("s").folder

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}

    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list(folder.glob("*.parquet"))) < 10:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = files()
    assert 10 <= len(done) < BATCHES
    assert len(store.read("eval-after")) == 4  # what is there can be read at once
    torn = folder / ".more-000@00000000.parquet.1.tmp"
    torn.write_bytes(b"half a row")
    printed = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    before = [p for b in store.batches() for p in store.scores("s").parts(b) if p.path.name in done]
    assert f"{sum(part.scored for part in before)} were already" in printed
    assert not torn.exists()
    assert files().items() >= done.items()
    whole = api.score(run, str(run / "teacher"), name="whole", top_k=4, say=quiet)
    assert whole.already == 0
    for batch in store.batches():
        parts = store.scores("s").parts(batch)
        assert [row for part in parts for row in range(part.start, part.start + part.n)] == list(range(store.size(batch)))
        for trajectory in store.read(batch, ["s", "whole"]):
            ours, theirs = trajectory.scores["s"], trajectory.scores["whole"]
            assert np.array_equal(ours.logprobs, theirs.logprobs)
            assert np.array_equal(np.asarray(ours.topk_ids), np.asarray(theirs.topk_ids))


def test_another_model_under_the_same_name_is_refused_in_a_sentence_that_names_both(run: Path, capsys) -> None:
    api.score(run, str(run / "teacher"), name="s", batch="iter-000001", say=quiet)
    assert main(["score", str(run), "--scorer", f"s={run / 'student'}"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"'{run / 'teacher'}'" in said
    assert f"'{run / 'student'}' is another (weights" in said
    assert main(["score", str(run), "--scorer", f"tiny:32x2={run / 'student'}"]) == 1  # the run's own teacher's name
    assert "given by model 'tiny:32x2'" in capsys.readouterr().err
    assert all(set(t.scores) == {"tiny:32x2"} for t in Store(run / "store").read("iter-000002"))


def test_the_teachers_own_name_may_be_gone_on_with(run: Path) -> None:
    added = api.score(run, str(run / "teacher"), name="tiny:32x2", say=quiet)
    assert set(added.batches) == {"eval-after", "eval-before", "eval-teacher"}
    assert added.already == 12


def test_another_vocabulary_is_refused_before_a_score(run: Path, tmp_path: Path) -> None:
    lm = load_model(str(run / "teacher"))
    other = train_tokenizer(["something else entirely, of other words"] * 4, len(lm.tokenizer))
    lm.tokenizer = other
    save_model(tmp_path / "other", lm)
    with pytest.raises(UserError, match=r"student and scorer '.*/other' have different vocabularies .* choose a scorer of"):
        api.score(run, str(tmp_path / "other"), name="s", say=quiet)
    assert Store(run / "store").scorers() == ["tiny:32x2"]


def test_a_folder_that_lost_its_tokenizer_says_how_to_name_one(run: Path) -> None:
    for own in ("final", "student", "tokenizer"):
        shutil.rmtree(run / own)
    with pytest.raises(UserError, match=r"does not say whose tokens its store holds; name a model .* by --tokenizer"):
        api.score(run, str(run / "teacher"), say=quiet)
    assert api.score(run, str(run / "teacher"), tokenizer=str(run / "teacher"), batch="eval-after", say=quiet).episodes == 4


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("none --scorer s=x", "there is no run folder 'none'"),
        ("RUN --scorer x", "--scorer must be NAME=MODEL"),
        ("RUN", "--scorer must be NAME=MODEL"),
        ("RUN --scorer s=tiny:32x2", "would be random weights"),
        ("RUN --scorer s=./nowhere", "there is no model folder './nowhere'"),
        ("RUN --scorer s=RUN/teacher --batch iter-000009", "no batch 'iter-000009'"),
        ("RUN --scorer s=RUN/teacher --top-k -1", "top_k is -1"),
        ("RUN --scorer s=RUN/teacher --token-budget 0", "token_budget 0"),
        ("RUN --scorer s=RUN/teacher --out x.json", "--out is for what --what-if shows"),
    ],
)
def test_mistakes_end_in_one_sentence(words: str, says: str, guess_run: Path, capsys) -> None:
    assert main(["score", *words.replace("RUN", str(guess_run)).split()]) == 1
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_damaged_scores_are_named_and_cost_nothing_else(run: Path) -> None:
    api.score(run, str(run / "teacher"), name="s", say=quiet)
    (file,) = Store(run / "store").scores("s").paths("iter-000002")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match="delete it, and score again"):
        api.score(run, str(run / "teacher"), name="s", say=quiet)
    assert api.replay(run, say=quiet).exact  # which reads no scores
    file.unlink()
    assert api.score(run, str(run / "teacher"), name="s", say=quiet).batches == {"iter-000002": 6}


def test_a_wide_top_k_is_the_whole_vocabulary(run: Path) -> None:
    width = load_model(str(run / "teacher")).vocab_size
    api.score(run, str(run / "teacher"), name="s", top_k=10**6, batch="eval-after", say=quiet)
    (first, *_) = Store(run / "store").read("eval-after")
    values = torch.as_tensor(np.asarray(first.scores["s"].topk_logprobs))
    assert values.shape[1] == width
    torch.testing.assert_close(values.exp().sum(-1), torch.ones(len(values), dtype=torch.float64), atol=1e-4, rtol=0)
    assert api.score(run, str(run / "teacher"), name="s", top_k=10**6, batch="eval-after", say=quiet).episodes == 0
