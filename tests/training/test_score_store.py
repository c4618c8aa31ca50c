"""Scores added to a store are training's own numbers, and each trajectory is asked about once, whatever stops it in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentdistill.errors import StoreError, UserError
from agentdistill.policies.base import ScoreRequest, TeacherScores
from agentdistill.policies.identity import identify
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.store import Store
from agentdistill.training import score_portion
from agentdistill.training import score_store as module
from agentdistill.training.score import score, trainable
from agentdistill.training.score_portion import Columns
from agentdistill.training.score_store import Added, StoreScoring, in_this_process
from agentdistill.trajectory import Trajectory
from tests.training.test_score import by_hand

Maker = Callable[[int], CausalLM]
Player = Callable[..., list[Trajectory]]


class Counting(TransformersScorer):
    """Counts the sequences it is asked about; stops with an error at the call `broken`."""

    def __init__(self, lm: CausalLM, broken: int = 0) -> None:
        super().__init__(lm, budget=1000)
        self.asked, self.calls, self.broken = 0, 0, broken

    def score(self, requests: Sequence[ScoreRequest]) -> list[TeacherScores]:
        self.calls += 1
        if self.calls == self.broken:
            raise KeyboardInterrupt
        self.asked += len(requests)
        return super().score(requests)


def add(store: Store, scorer: TransformersScorer, name: str = "s", **settings: Any) -> Added:
    columns = Columns(**settings)
    scoring = StoreScoring(store, identify(scorer.lm, as_student=columns.as_student), name, columns)
    return scoring.run(store.batches(), in_this_process(store, scorer, name, columns))


@pytest.fixture(scope="module")
def played(play: Player) -> list[Trajectory]:
    """Windowed episodes whose teacher sees the plan, of several segments, and one that its environment lost."""
    return play(0, privileged=True)


@pytest.fixture
def store(played: list[Trajectory], tmp_path: Path) -> Store:
    out = Store(tmp_path / "store")
    for batch in ("a", "b", "c"):
        out.write(batch, played)
    return out


def test_the_numbers_are_those_that_training_would_have_used(make_lm: Maker, store: Store, played: list[Trajectory]) -> None:
    added = add(store, TransformersScorer(make_lm(1), budget=1000), entropy=True)
    rows = trainable(played)
    score(make_lm(0), TransformersScorer(make_lm(1), budget=1000), rows, 1000)
    for batch in "abc":
        *read, lost = store.read(batch)
        assert (len(read), lost.stop_reason, lost.scores) == (4, "env_error", {})
        for mine, theirs in zip(read, rows, strict=True):
            assert np.array_equal(mine.scores["s"].logprobs, theirs.scores["tiny-1"].logprobs)
            assert np.array_equal(np.asarray(mine.scores["s"].entropy), np.asarray(theirs.scores["tiny-1"].entropy))
    tokens = sum(t.n_action_tokens for t in rows)
    assert (added.episodes, added.already, added.left_out, added.tokens) == (12, 0, 3, 3 * tokens)
    assert added.read > added.tokens
    assert added.batches == {"a": 4, "b": 4, "c": 4}
    for t in rows:
        t.scores.clear()


def test_a_scorer_can_be_shown_what_the_student_saw(make_lm: Maker, store: Store, played: list[Trajectory]) -> None:
    add(store, TransformersScorer(make_lm(1)), "plan")
    add(store, TransformersScorer(make_lm(1)), "plain", as_student=True)
    (own, plain) = (np.concatenate([t.scores[n].logprobs for t in trainable(store.read("a"))]) for n in ("plan", "plain"))
    rows = trainable(played)
    np.testing.assert_allclose(own, by_hand(make_lm(1), rows, teacher=True)[0], atol=1e-4)
    np.testing.assert_allclose(plain, by_hand(make_lm(1), rows)[0], atol=1e-4)
    assert np.abs(own - plain).max() > 0.01


def test_the_likeliest_ids_are_those_of_the_whole_distribution(
    make_lm: Maker, store: Store, played: list[Trajectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_portion.model_module, "CHUNK_ELEMENTS", 3 * 300)  # several chunks a segment
    add(store, TransformersScorer(make_lm(1)), top_k=7)
    _, full = by_hand(make_lm(1), trainable(played), teacher=True)
    read = [t.scores["s"] for t in trainable(store.read("b"))]
    values, ids = full.topk(7, -1)
    found = np.concatenate([np.asarray(s.topk_logprobs) for s in read])
    np.testing.assert_allclose(found, values, atol=1e-4)
    chosen = torch.as_tensor(np.concatenate([np.asarray(s.topk_ids) for s in read]))
    np.testing.assert_allclose(full.gather(-1, chosen), values, atol=1e-4)
    assert bool((chosen == ids).float().mean() > 0.99)
    assert all(s.entropy is None for s in read)


def test_what_is_scored_is_not_asked_again(make_lm: Maker, store: Store, played: list[Trajectory]) -> None:
    first, again = Counting(make_lm(1)), Counting(make_lm(1))
    add(store, first)
    assert first.asked > 12
    added = add(store, again)
    assert (again.asked, added.episodes, added.already, added.left_out, added.bytes) == (0, 0, 12, 3, {})
    store.write("d", played)
    assert add(store, again).batches == {"d": 4}
    assert 3 * again.asked == first.asked


def test_asking_for_more_scores_again_and_asking_for_less_does_not(make_lm: Maker, store: Store) -> None:
    scorer = Counting(make_lm(1))
    add(store, scorer)
    plain = [t.scores["s"].logprobs for t in trainable(store.read("a"))]
    assert add(store, scorer, top_k=3).episodes == 12
    assert add(store, scorer, top_k=3, entropy=True).episodes == 12
    assert add(store, scorer, top_k=2).episodes == add(store, scorer, entropy=True).episodes == add(store, scorer).episodes == 0
    for trajectory, before in zip(trainable(store.read("a")), plain, strict=True):
        scores = trajectory.scores["s"]
        assert np.array_equal(scores.logprobs, before)
        assert (np.asarray(scores.topk_ids).shape[1], scores.entropy is None) == (3, False)


def rows_of(store: Store, name: str = "s") -> dict[str, list[int]]:
    """Which rows the files of each batch hold."""
    parts = {batch: store.scores(name).parts(batch) for batch in store.batches()}
    return {batch: [row for part in each for row in range(part.start, part.start + part.n)] for batch, each in parts.items()}


@pytest.mark.parametrize("broken", [2, 5, 9])
def test_whatever_stops_it_no_trajectory_is_lost_or_scored_twice(
    broken: int, make_lm: Maker, store: Store, tmp_path: Path, played: list[Trajectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EPISODES", 2)  # files of 2, 2 and 1 trajectories; the last holds no score and asks nobody
    whole = Store(tmp_path / "whole")
    for batch in store.batches():
        whole.write(batch, played)
    full = Counting(make_lm(1))
    add(whole, full)
    scorer = Counting(make_lm(1), broken)
    with pytest.raises(KeyboardInterrupt):
        add(store, scorer)
    done = {path: path.stat().st_mtime_ns for path in store.scores("s").folder.glob("*.parquet")}
    assert len(done) == broken - 1
    rest = Counting(make_lm(1))
    add(store, rest)
    assert rows_of(store) == {batch: [0, 1, 2, 3, 4] for batch in "abc"}
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert scorer.asked + rest.asked == full.asked
    for batch in store.batches():
        for mine, theirs in zip(store.read(batch), whole.read(batch), strict=True):
            assert mine.scores.keys() == theirs.scores.keys()
            assert all(np.array_equal(mine.scores[n].logprobs, theirs.scores[n].logprobs) for n in mine.scores)


def test_files_that_are_replaced_by_smaller_ones_leave_no_row_twice(
    make_lm: Maker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, Counting(make_lm(1)))
    monkeypatch.setattr(module, "NUMBERS", 1)  # a trajectory a file
    with pytest.raises(KeyboardInterrupt):
        add(store, Counting(make_lm(1), broken=2), top_k=2)
    assert rows_of(store)["a"] == [0]
    assert [bool(t.scores) for t in store.read("a")] == [True, False, False, False, False]
    add(store, Counting(make_lm(1)), top_k=2)
    assert rows_of(store) == {batch: [0, 1, 2, 3, 4] for batch in "abc"}
    monkeypatch.undo()
    add(store, Counting(make_lm(1)), top_k=4)
    assert rows_of(store) == {batch: [0, 1, 2, 3, 4] for batch in "abc"}
    assert all(np.asarray(t.scores["s"].topk_ids).shape[1] == 4 for t in trainable(store.read("a")))


def test_what_training_stored_under_the_name_counts_where_it_is_enough(
    make_lm: Maker, played: list[Trajectory], tmp_path: Path
) -> None:
    rows, store, teacher = trainable(played), Store(tmp_path), Counting(make_lm(1))
    score(make_lm(0), teacher, rows, 1000)
    store.write("iter-000001", rows)
    store.write("other", played[:2])
    store.scores("tiny-1").claim(identify(teacher.lm))
    for t in rows:
        t.scores.clear()
    store.write("other", played)
    added = add(store, Counting(make_lm(1)), "tiny-1", entropy=True)
    assert (added.batches, added.already) == ({"other": 4}, 4)
    assert add(store, Counting(make_lm(1)), "tiny-1", top_k=2).batches == {"iter-000001": 4, "other": 4}


def test_scores_that_nobody_answers_for_are_not_taken_over(make_lm: Maker, played: list[Trajectory], tmp_path: Path) -> None:
    rows, store = trainable(played), Store(tmp_path)
    score(make_lm(0), Counting(make_lm(1)), rows, 1000)
    store.write("iter-000001", rows)
    for t in rows:
        t.scores.clear()
    with pytest.raises(StoreError, match=r"not written down who gave the scores 'tiny-1'.* choose another name"):
        add(store, Counting(make_lm(2)), "tiny-1")


def test_a_name_of_another_model_is_refused_before_anybody_is_asked(make_lm: Maker, store: Store) -> None:
    add(store, Counting(make_lm(1)))
    other = Counting(make_lm(2))
    with pytest.raises(StoreError, match=r"given by model 'tiny-1' .* and 'tiny-2' is another"):
        add(store, other)
    assert other.calls == 0


def test_a_score_that_is_not_finite_is_refused_by_trajectory_and_nothing_is_written(make_lm: Maker, store: Store) -> None:
    broken = make_lm(1)
    with torch.no_grad():
        next(broken.model.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="not finite for trajectory 'b/0000'"):
        add(store, TransformersScorer(broken))
    assert rows_of(store) == {"a": [], "b": [], "c": []}


def test_a_scorer_without_distributions_is_not_asked_for_a_top_k(make_lm: Maker, store: Store) -> None:
    class Sampled(TransformersScorer):
        capabilities = frozenset({"teacher"})

    with pytest.raises(UserError, match="'s' gives no distributions, so there is no top-k"):
        add(store, Sampled(make_lm(1)), top_k=2)
