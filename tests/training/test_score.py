"""From episodes to the scored table, against a by-hand forward pass of every segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from agentdistill.chat import Chat
from agentdistill.demonstrations import demonstrate
from agentdistill.policies import model as model_module
from agentdistill.policies.base import ScoreRequest, TeacherScores
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.policies.tiny import tiny_model
from agentdistill.pool import EnvPool
from agentdistill.training.score import score, trainable
from agentdistill.trajectory import Trajectory

Maker = Callable[[int], CausalLM]
Player = Callable[..., list[Trajectory]]


def segments_of(trajectory: Trajectory) -> list[tuple[list[int], list[int], list[int] | None]]:
    """(ids, positions of student tokens, ids as the teacher sees them or None) of each segment, from the turns alone."""
    out: list[tuple[list[int], list[int], list[int] | None]] = []
    for k, turn in enumerate(trajectory.turns):
        if turn.fresh or not k:
            out.append(([], [], None if turn.teacher_prompt_ids is None else []))
        ids, targets, theirs = out[-1]
        if theirs is not None:
            theirs += turn.teacher_prompt_ids if turn.fresh else turn.prompt_ids
            theirs += turn.action_ids
        ids += turn.prompt_ids
        if turn.author == "student":
            targets += range(len(ids), len(ids) + len(turn.action_ids))
        ids += turn.action_ids
    return out


def distributions(lm: CausalLM, ids: list[int], targets: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([ids])).logits[0].double()
    return torch.log_softmax(logits, -1)[[t - 1 for t in targets]]


def by_hand(lm: CausalLM, rows: list[Trajectory], *, teacher: bool = False) -> tuple[np.ndarray, torch.Tensor]:
    """Log-probabilities of all student tokens in stream order, and the distributions they came from."""
    values, full = [], []
    for trajectory in rows:
        for ids, targets, theirs in segments_of(trajectory):
            view = theirs if teacher and theirs is not None else ids
            moved = [t + len(view) - len(ids) for t in targets]
            logprobs = distributions(lm, view, moved)
            full.append(logprobs)
            values += [float(logprobs[i, view[t]]) for i, t in enumerate(moved)]
    return np.array(values), torch.cat(full)


@pytest.fixture(scope="module")
def batch(play: Player) -> list[Trajectory]:
    return trainable(play(0))


def test_the_fixture_has_everything_that_matters(play: Player, batch: list[Trajectory]) -> None:
    assert [t.stop_reason for t in play(0)][-1] == "env_error"
    assert len(batch) == 4
    assert max(t.windowed for t in batch) >= 2
    assert any(t.prefix_turns for t in batch)
    assert {turn.finish for t in batch for turn in t.turns} >= {"length", "replayed"}


def test_lost_episodes_and_those_without_student_tokens_carry_no_loss(play: Player, chat: Chat) -> None:
    played = play(0)
    shown = demonstrate(EnvPool("lab/Guess-v0"), [1], chat, max_turns=4, max_context=99)
    assert trainable([*played, *shown]) == played[:4]


@pytest.mark.parametrize("budget", [1, 150, 100_000])
def test_both_models_say_what_a_plain_forward_pass_says(make_lm: Maker, batch: list[Trajectory], budget: int) -> None:
    student, teacher = make_lm(0), make_lm(1)
    scored = score(student, TransformersScorer(teacher, budget=budget), batch, budget)
    table, rows = scored.table, scored.table.is_action
    ours, our_full = by_hand(student, batch)
    theirs, their_full = by_hand(teacher, batch)
    np.testing.assert_allclose(table["logprob"][rows], ours, atol=1e-4)
    np.testing.assert_allclose(table["teacher"][rows], theirs, atol=1e-4)
    np.testing.assert_allclose(table["rkl"][rows], (our_full.exp() * (our_full - their_full)).sum(-1), atol=1e-3)
    np.testing.assert_allclose(table["entropy"][rows], -(our_full.exp() * our_full).sum(-1), atol=1e-3)
    np.testing.assert_allclose(table["sampler"][rows], table["recomputed"][rows], atol=1e-4)
    assert np.array_equal(scored.kl[rows], table["rkl"][rows])
    assert np.isnan(table["logprob"][~rows]).all()
    assert np.isnan(table["teacher"][~rows]).all()


def test_the_table_has_a_row_for_every_token_in_order(make_lm: Maker, batch: list[Trajectory]) -> None:
    scored = score(make_lm(0), None, batch, 1000)
    streams = [t.stream() for t in batch]
    assert len(scored.table) == sum(len(s.ids) for s in streams)
    for name in ("turn", "step", "is_action"):
        assert np.array_equal(scored.table[name], np.concatenate([getattr(s, name) for s in streams]))
    assert np.array_equal(scored.table.by_trajectory("group"), [t.group for t in batch])
    assert np.array_equal(scored.table.by_trajectory("reward"), [t.reward for t in batch])


def test_targets_rows_and_ids_line_up_and_cover_the_students_tokens_once(make_lm: Maker, batch: list[Trajectory]) -> None:
    scored = score(make_lm(0), None, batch, 1000)
    ids = np.concatenate([t.stream().ids for t in batch])
    for sequence in scored.sequences:
        assert np.array_equal(ids[sequence.rows], sequence.ids[sequence.targets])
        assert set(scored.table.trajectory[sequence.rows]) == {sequence.trajectory}
        assert sequence.targets.min() > 0
    rows = np.concatenate([s.rows for s in scored.sequences])
    assert np.array_equal(rows, np.flatnonzero(scored.table.is_action))
    assert len(scored.sequences) == sum(bool(targets) for t in batch for _, targets, _ in segments_of(t))
    assert len(scored.sequences) > len(batch)


def test_replayed_and_random_messages_are_never_targets(make_lm: Maker, batch: list[Trajectory], chat: Chat) -> None:
    noisy = demonstrate(EnvPool("lab/Guess-v0"), [3], chat, max_turns=9, max_context=400, noise=0.6, seed=1)[0]
    assert {turn.author for turn in noisy.turns} == {"expert", "noise"}
    own = batch[0].turns[0]
    own_ids = chat.message_ids("5")
    noisy.turns[-1].author = "student"  # as if the student had played the last one
    noisy.turns[-1].action_ids = own_ids
    noisy.turns[-1].logprobs = noisy.turns[-1].logprobs_t1 = [-1.0] * len(own_ids)
    scored = score(make_lm(0), None, [noisy, batch[1]], 1000)
    for sequence, trajectory in zip(scored.sequences[:1], [noisy], strict=True):
        assert sequence.ids[sequence.targets].tolist() == own_ids
        assert sequence.targets.tolist() == list(range(len(sequence.ids) - len(own_ids), len(sequence.ids)))
        assert trajectory.n_action_tokens == len(own_ids)
    replayed = scored.table.turn[scored.table.trajectory == 1] < batch[1].prefix_turns
    assert replayed.any()
    assert not scored.table.is_action[scored.table.trajectory == 1][replayed].any()
    assert own.author == "student"


def test_a_teacher_with_the_plan_scores_the_same_tokens_behind_its_own_prompt(make_lm: Maker, play: Player) -> None:
    rows = trainable(play(0, privileged=True))
    student, teacher = make_lm(0), make_lm(1)
    scored = score(student, TransformersScorer(teacher), rows, 1000)
    mask = scored.table.is_action
    ours, our_full = by_hand(student, rows)
    theirs, their_full = by_hand(teacher, rows, teacher=True)
    np.testing.assert_allclose(scored.table["logprob"][mask], ours, atol=1e-4)
    np.testing.assert_allclose(scored.table["teacher"][mask], theirs, atol=1e-4)
    np.testing.assert_allclose(scored.table["rkl"][mask], (our_full.exp() * (our_full - their_full)).sum(-1), atol=1e-3)
    blind, _ = by_hand(teacher, rows)
    assert np.abs(theirs - blind).max() > 0.01  # the plan does change what it says
    for sequence in scored.sequences:
        seen = np.array(sequence.teacher.ids)[list(sequence.teacher.targets)]
        assert np.array_equal(seen, sequence.ids[sequence.targets])
        assert len(sequence.teacher.ids) > len(sequence.ids)


def test_the_teachers_scores_are_put_beside_each_trajectory(make_lm: Maker, play: Player) -> None:
    rows = trainable(play(0))
    teacher = make_lm(1)
    scored = score(make_lm(0), TransformersScorer(teacher), rows, 1000)
    for index, trajectory in enumerate(rows):
        scores = trajectory.scores[teacher.name]
        assert len(scores.logprobs) == trajectory.n_action_tokens
        chosen = (scored.table.trajectory == index) & scored.table.is_action
        assert np.array_equal(scores.logprobs, scored.table["teacher"][chosen])
        _, full = by_hand(teacher, [trajectory])
        np.testing.assert_allclose(scores.entropy, -(full.exp() * full).sum(-1), atol=1e-3)


def test_a_reference_scores_the_tokens_as_the_student_saw_them_beside_the_teacher(make_lm: Maker, play: Player) -> None:
    rows = trainable(play(0, privileged=True))
    student, teacher, other = make_lm(0), TransformersScorer(make_lm(1)), make_lm(2)
    reference = TransformersScorer(other)
    reference.name = "reference:tiny-2"
    scored = score(student, teacher, rows, 300, reference=reference)
    expected, _ = by_hand(other, rows)
    np.testing.assert_allclose(scored.table["reference"][scored.table.is_action], expected, atol=2e-4)
    assert np.isnan(scored.table["reference"][~scored.table.is_action]).all()
    assert np.abs(scored.table["teacher"] - scored.table["reference"])[scored.table.is_action].max() > 0.1
    for trajectory in rows:
        assert set(trajectory.scores) == {"tiny-1", "reference:tiny-2"}
    assert scored.references is not None
    assert [len(answer.logprobs) for answer in scored.references] == [len(s.targets) for s in scored.sequences]
    assert "reference" not in score(student, teacher, trainable(play(0)), 300).table


def test_the_samplers_own_log_probs_can_be_the_old_ones(make_lm: Maker, batch: list[Trajectory]) -> None:
    scored = score(make_lm(2), None, batch, 1000, old="sampler")
    rows = scored.table.is_action
    stored = [lp for t in batch for turn in t.turns if turn.author == "student" for lp in turn.logprobs_t1]
    assert scored.table["logprob"][rows].tolist() == stored
    np.testing.assert_allclose(scored.table["recomputed"][rows], by_hand(make_lm(2), batch)[0], atol=1e-4)


class SampledOnly:
    """A teacher that gives log-probabilities of the sampled tokens and nothing else, as an API does."""

    name = "api"
    capabilities = frozenset({"teacher"})

    def __init__(self, lm: CausalLM) -> None:
        self.inner = TransformersScorer(lm)

    def score(self, requests: Sequence[ScoreRequest]) -> list[TeacherScores]:
        return [TeacherScores(answer.logprobs) for answer in self.inner.score(requests)]


def test_a_teacher_without_distributions_gives_the_sampled_log_ratio(make_lm: Maker, play: Player) -> None:
    rows = trainable(play(0))
    scored = score(make_lm(0), SampledOnly(make_lm(1)), rows, 1000)
    assert "rkl" not in scored.table
    chosen = scored.table.is_action
    expected = by_hand(make_lm(0), rows)[0] - by_hand(make_lm(1), rows)[0]
    np.testing.assert_allclose(scored.kl[chosen], expected, atol=1e-4)
    assert rows[0].scores["api"].entropy is None


def test_without_a_teacher_there_is_no_teacher_column(make_lm: Maker, batch: list[Trajectory]) -> None:
    scored = score(make_lm(0), None, batch, 1000)
    assert scored.answers is None
    assert not {"teacher", "rkl"} & set(scored.table.names)


def test_chunks_change_nothing(make_lm: Maker, batch: list[Trajectory], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = score(make_lm(0), TransformersScorer(make_lm(1)), batch, 1000)
    monkeypatch.setattr(model_module, "CHUNK_ELEMENTS", 3 * 300)
    parts = score(make_lm(0), TransformersScorer(make_lm(1)), batch, 1000)
    for name in ("logprob", "entropy", "rkl", "teacher"):
        np.testing.assert_allclose(whole.table[name], parts.table[name], atol=1e-5)


def test_a_wider_teacher_head_is_cut_to_the_common_ids_and_renormalised(make_lm: Maker, batch: list[Trajectory]) -> None:
    student, narrow = make_lm(0), make_lm(1)
    model = tiny_model("32x2", len(narrow.tokenizer) + 24, 0)
    with torch.no_grad():
        own, weight = narrow.model.state_dict(), model.get_input_embeddings().weight
        weight.normal_(generator=torch.Generator().manual_seed(0))
        weight[: len(narrow.tokenizer)] = own["model.embed_tokens.weight"]
        kept = {k: v for k, v in own.items() if "embed" not in k and "lm_head" not in k}
        model.load_state_dict(kept, strict=False)
    wide = CausalLM(model, narrow.tokenizer, "wide")
    a = score(student, TransformersScorer(wide), batch, 1000)
    b = score(student, TransformersScorer(narrow), batch, 1000)
    rows = a.table.is_action
    np.testing.assert_allclose(a.table["rkl"][rows], b.table["rkl"][rows], atol=1e-3)
