"""`agentdistill score` on a run's folder: killed and gone on with, refused in one sentence, and what it prints."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentdistill import api
from agentdistill.cli import main
from agentdistill.errors import UserError
from agentdistill.policies.load import load_model
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.policies.tiny import train_tokenizer
from agentdistill.store import Store
from agentdistill.training.state import save_model
from tests.forking import Forks

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


def longer(run: Path, batches: int = BATCHES) -> Store:
    """The run's store with so many more batches."""
    store = Store(run / "store")
    episodes = store.read("iter-000001", ()) * 2
    for n in range(batches):
        store.write(f"more-{n:03d}", [dataclasses.replace(t, id=f"{n}/{i}") for i, t in enumerate(episodes)])
    return store


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*.parquet")}


def until(folder: Path, wanted: int) -> None:
    """Wait for so many files."""
    while len(list(folder.glob("[!.]*.parquet"))) < wanted:
        time.sleep(0.001)


def require_each_row_once(store: Store, name: str) -> None:
    for batch in store.batches():
        parts = store.scores(name).parts(batch)
        assert [row for part in parts for row in range(part.start, part.start + part.n)] == list(range(store.size(batch)))


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as process:
        yield process


def test_scoring_that_is_killed_at_any_moment_goes_on_where_it_was_without_a_row_twice_or_half(run: Path, forks: Forks) -> None:
    store, rng, output = longer(run), random.Random(0), str(run / "printed")
    words, folder = ["score", str(run), "--scorer", f"s={run / 'teacher'}", "--top-k", "4"], store.scores("s").folder
    kept: dict[str, bytes] = {}
    for _ in range(6):
        process = forks.start(words, output)
        until(folder, len(kept) + rng.randint(1, 5))
        time.sleep(rng.random() * 0.02)  # in the middle of whatever comes next
        os.kill(process, signal.SIGKILL)
        assert forks.wait() == -signal.SIGKILL, "it was through before it was killed"
        now = files(folder)
        assert now.items() >= kept.items()
        kept = now
        assert len(store.read("eval-after")) == 4  # what is there can be read at once
    torn = folder / ".more-000@00000000.parquet.1.tmp"
    torn.write_bytes(b"half a row")
    scored = sum(part.scored for batch in store.batches() for part in store.scores("s").parts(batch))
    forks.start(words, output)
    assert forks.wait() == 0, Path(output).read_text()
    assert f"{scored} were already" in Path(output).read_text()
    assert len(kept) < len(files(folder))
    assert not torn.exists()
    assert files(folder).items() >= kept.items()
    require_each_row_once(store, "s")
    whole = api.score(run, str(run / "teacher"), name="whole", top_k=4, say=quiet)
    assert whole.already == 0
    for batch in store.batches():
        for trajectory in store.read(batch, ["s", "whole"]):
            ours, theirs = trajectory.scores["s"], trajectory.scores["whole"]
            assert np.array_equal(ours.logprobs, theirs.logprobs)
            assert np.array_equal(np.asarray(ours.topk_ids), np.asarray(theirs.topk_ids))


def children(process: int) -> list[int]:
    """Processes that it has started, threads' too."""
    return [int(pid) for path in Path(f"/proc/{process}/task").glob("*/children") for pid in path.read_text().split()]


@pytest.mark.parametrize("victim", ["parent", "worker"])
def test_whichever_scoring_process_is_killed_all_end_and_the_rest_can_be_gone_on_with(
    victim: str, run: Path, forks: Forks
) -> None:
    store, output = longer(run), run / "printed"
    process = forks.start(["score", str(run), "--scorer", f"s={run / 'teacher'}", "--workers", "1"], str(output))
    until(store.scores("s").folder, 2)
    (worker,) = children(process)
    os.kill({"parent": process, "worker": worker}[victim], signal.SIGKILL)
    if victim == "worker":
        assert forks.wait() == 1
        last = output.read_text().splitlines()[-1]
        assert "a scoring process was killed by signal 9, out of memory perhaps: fewer --workers" in last
    else:
        assert forks.wait() == -signal.SIGKILL
        while Path(f"/proc/{worker}").exists() and "Z" not in Path(f"/proc/{worker}/stat").read_text().split()[2]:
            time.sleep(0.01)
    kept = files(store.scores("s").folder)
    assert api.score(run, str(run / "teacher"), name="s", say=quiet).already > 0
    assert files(store.scores("s").folder).items() >= kept.items()
    require_each_row_once(store, "s")


def test_processes_share_the_work_and_give_the_numbers_that_training_used(run: Path) -> None:
    said: list[str] = []
    added = api.score(run, str(run / "teacher"), name="again", entropy=True, workers=2, say=said.append)
    store = api.load_run(run)
    assert added.episodes == sum(map(store.size, store.batches()))
    assert len({part.path for batch in store.batches() for part in store.scores("again").parts(batch)}) > len(store.batches())
    require_each_row_once(store, "again")
    for batch in ("iter-000001", "iter-000002"):
        for trajectory in store.read(batch):
            own, again = trajectory.scores["tiny:32x2"], trajectory.scores["again"]
            np.testing.assert_allclose(own.logprobs, again.logprobs, atol=1e-5, rtol=0)
            np.testing.assert_allclose(np.asarray(own.entropy), np.asarray(again.entropy), atol=1e-5, rtol=0)
    assert api.score(run, str(run / "teacher"), name="again", workers=2, say=quiet).episodes == 0


def test_two_calls_at_once_never_score_under_one_name(run: Path, capsys) -> None:
    store = Store(run / "store")
    with store.scores("s").exclusive():
        assert main(["score", str(run), "--scorer", f"s={run / 'teacher'}"]) == 1
        said = capsys.readouterr().err
        assert f"another process is adding scores 's' to {run / 'store'}; wait for it, or choose another name" in said
        assert said.count("\n") == 1
        assert store.scores("s").identity() is None
        assert api.score(run, str(run / "teacher"), name="other", batch="eval-after", say=quiet).episodes == 4
    assert api.score(run, str(run / "teacher"), name="s", batch="eval-after", say=quiet).episodes == 4


def test_a_run_that_writes_and_replaces_batches_meanwhile_costs_no_row(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, plain = Store(run / "store"), TransformersScorer.score
    episodes, asked = store.read("iter-000001", ()), []

    def score(scorer: TransformersScorer, requests: Any) -> Any:
        if len(asked) == 1:  # what `iter-000001` held has been read by now, and is not stored yet
            store.write("iter-000003", episodes)
            store.write("eval-before", [dataclasses.replace(t, id=f"new/{t.id}") for t in store.read("eval-before", ())])
        asked.append(len(requests))
        return plain(scorer, requests)

    monkeypatch.setattr(TransformersScorer, "score", score)
    assert store.batches()[:2] == ["eval-after", "eval-before"]
    api.score(run, str(run / "teacher"), name="s", say=quiet)
    with pytest.raises(UserError, match="not the batch's any more; score again"):
        store.read("eval-before")
    again = api.score(run, str(run / "teacher"), name="s", say=quiet)
    assert set(again.batches) == {"eval-before", "iter-000003"}
    require_each_row_once(store, "s")
    assert all("s" in t.scores for batch in store.batches() for t in store.read(batch))


@pytest.mark.parametrize("harm", ["flipped", "deleted"])
def test_a_damaged_store_is_told_before_the_model_is_loaded(harm: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentdistill.training.score_run.load_model", None)
    file = run / "store" / "iter-000002.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()
    if harm == "flipped":
        file.write_bytes(data)
    sentence = {"flipped": "is not as it was written", "deleted": "is missing"}[harm]
    for ask in (
        lambda: api.score(run, str(run / "teacher"), name="s", say=quiet),
        lambda: api.what_if(run, "method=sod,delta=0.5"),
    ):
        with pytest.raises(UserError, match=rf"iter-000002\.parquet {sentence}"):
            ask()


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
        ("RUN:iter-000001 --scorer s=x", "; name batch 'iter-000001' of '"),
        ("RUN --scorer s=x --top-k -1", "top_k is -1; it is how many of the likeliest ids are kept, 0 or more"),
        ("RUN --scorer s=x --token-budget 0", "token_budget is 0; it is how many tokens are read in one pass, 1 or more"),
        ("RUN --scorer x", "--scorer must be NAME=MODEL"),
        ("RUN", "--scorer must be NAME=MODEL"),
        ("RUN --scorer s=tiny:32x2", "would be random weights"),
        ("RUN --scorer s=./nowhere", "there is no model folder './nowhere'"),
        ("RUN --scorer s=RUN/teacher --batch iter-000009", "no batch 'iter-000009'"),
        ("RUN --scorer s=RUN/teacher --workers -1", "workers is -1"),
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
    assert [file.name in problem for problem in api.replay(run, say=quiet).problems] == [True]
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
