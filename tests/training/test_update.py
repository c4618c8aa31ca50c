"""The accumulated gradient against plain autograd, whatever the micro-batches and chunks, and against exact expectations."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from agentdistill.errors import UserError
from agentdistill.policies import model as model_module
from agentdistill.policies.base import TeacherScores
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.signals import Method, Streams
from agentdistill.signals.parts import Parts
from agentdistill.signals.registry import DIVERGENCES
from agentdistill.training.score import Scored, score, trainable
from agentdistill.training.update import Totals, accumulate
from agentdistill.trajectory import StopReason, Trajectory, Turn

Maker = Callable[[int], CausalLM]
METHODS: list[Any] = [
    "opd", "opd-exact", "gkd", "vopd", "grpo", "sod", "sod-exact",
    {"preset": "opd", "signal": {"kind": "opd", "gamma": 0.9}, "dual_clip": None, "clip_low": 0.05, "clip_high": 0.05},
    {"divergence": "fkl", "rl": "grpo", "rl_coef": 2.0, "kd_coef": 0.3, "aggregation": "seq-mean-token-mean"},
]  # fmt: skip


@dataclass
class Batch:
    """A scored batch, and a student whose weights have moved since it sampled."""

    student: CausalLM
    scored: Scored


@pytest.fixture(scope="module")
def batch(play: Callable[..., list[Trajectory]], make_lm: Maker) -> Batch:
    rows = trainable(play(0))
    for k, trajectory in enumerate(rows):
        trajectory.turns[-1].reward = float(k % 2)  # so that groups differ
    student = make_lm(0)
    scored = score(student, TransformersScorer(make_lm(1)), rows, 1000)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in student.model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    return Batch(student, scored)


def run(batch: Batch, method: Method, streams: Streams | None = None, **kwargs: Any) -> tuple[Totals, list[Tensor]]:
    """Totals and gradients of one call on all segments (unless `segments` or `coef` are given)."""
    streams = streams or method.apply(batch.scored.table)
    arguments = {"coef": streams.coef, "segments": range(len(batch.scored.sequences)), "budget": 1000} | kwargs
    batch.student.model.zero_grad(set_to_none=True)
    totals = accumulate(batch.student, method, batch.scored, streams, where="iteration 3", **arguments)
    grads = [p.grad.clone() for p in batch.student.model.parameters() if p.grad is not None]
    batch.student.model.zero_grad(set_to_none=True)
    return totals, grads


def plain(batch: Batch, method: Method, streams: Streams) -> tuple[float, list[Tensor], float]:
    """Loss, gradients and clipped tokens by one unpadded pass a segment and formulas written out again."""
    loss, clips = torch.zeros((), dtype=next(batch.student.model.parameters()).dtype), 0
    for i, s in enumerate(batch.scored.sequences):
        logits = batch.student.model(input_ids=torch.tensor(s.ids)[None]).logits[0, torch.tensor(s.targets) - 1]
        logprobs = torch.log_softmax(logits, -1)
        for k, row in enumerate(s.rows):
            ratio = (logprobs[k, s.ids[s.targets[k]]] - batch.scored.table["logprob"][row]).exp()
            a = float(streams.advantage[row])
            low, high = 1 - method.clip_low, 1 + method.clip_high
            term = torch.max(-a * ratio, -a * ratio.clamp(low, high))
            capped = method.dual_clip is not None and a < 0 and float(ratio.detach()) > method.dual_clip
            if capped:
                term = torch.tensor(-a * float(method.dual_clip or 0), dtype=ratio.dtype)
            clips += capped or (a > 0 and float(ratio.detach()) > high) or (a < 0 and float(ratio.detach()) < low)
            if method.exact:
                term = term + streams.kd_weight[row] * divergence(batch.scored, method, i, k, logprobs[k : k + 1])
            loss = loss + streams.coef[row] * term
    grads = torch.autograd.grad(loss, list(batch.student.model.parameters()))
    return float(loss.detach()), list(grads), clips


def divergence(scored: Scored, method: Method, segment: int, k: int, logprobs: Tensor) -> Tensor:
    """The method's divergence of one token, with student log-probs `[1, V]`."""
    s, dtype = scored.sequences[segment], logprobs.dtype
    ids = torch.tensor(s.ids[s.targets[k : k + 1]])
    assert scored.answers is not None
    theirs = scored.answers[segment].distribution.logprobs(torch.tensor([k])).to(dtype)
    sampled = torch.tensor(scored.table["teacher"][s.rows[k : k + 1]], dtype=dtype)
    parts = Parts(
        ids=ids, logprob=logprobs[:, ids[0]], student=lambda: logprobs, teacher_logprob=lambda: sampled, teacher=lambda: theirs
    )
    return method.divergence_loss(parts)[0]


def same(a: list[Tensor], b: list[Tensor], tolerance: float = 2e-6) -> None:
    assert len(a) == len(b)
    scale = max(float(x.abs().max()) for x in b)
    assert scale > 1e-3  # there is a gradient to speak of
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, atol=tolerance * max(1.0, scale), rtol=0)


@pytest.mark.parametrize("spec", METHODS, ids=str)
def test_loss_and_gradient_equal_plain_autograd_of_every_method(batch: Batch, spec: Any) -> None:
    method = Method.load(spec)
    streams = method.apply(batch.scored.table)
    totals, grads = run(batch, method, streams)
    loss, expected, clips = plain(batch, method, streams)
    assert totals.loss == pytest.approx(loss, abs=1e-4)
    assert (totals.clipped, totals.tokens) == (clips, int(batch.scored.table.is_action.sum()))
    same(grads, expected, tolerance=1e-5)


class Double:
    """A distribution in float64, whose own numbers are rounded no further."""

    def __init__(self, inner: Any) -> None:
        self.states, self.weight = inner.hidden.double(), inner.head.weight.detach().double()

    def logprobs(self, rows: slice | Tensor) -> Tensor:
        return torch.log_softmax(self.states[rows] @ self.weight.T, -1)


@pytest.fixture(scope="module")
def double(batch: Batch) -> Batch:
    """The same batch with everything that a step computes in float64."""
    student = replace(batch.student, model=copy.deepcopy(batch.student.model).double())
    answers = [TeacherScores(a.logprobs, None, Double(a.distribution)) for a in batch.scored.answers or []]
    return Batch(student, replace(batch.scored, answers=answers))


def alone() -> list[Any]:
    """Every divergence that looks at one token at a time, with a teacher only."""
    given = {"teacher", "distribution", "ids"}
    needs = {name: set(DIVERGENCES.resolve(name).needs) for name in DIVERGENCES.names()}
    return [{"divergence": name, "clip_high": 0.1} for name in needs if name not in ("none", "sinkd") and needs[name] <= given]


@pytest.mark.parametrize("spec", [*METHODS, *alone()], ids=str)
def test_in_float64_every_method_equals_the_plain_formulation_to_the_tenth_digit(
    double: Batch, spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "CHUNK_ELEMENTS", 7 * double.student.vocab_size)
    method = Method.load(spec)
    streams = method.apply(double.scored.table)
    totals, grads = run(double, method, streams, budget=150)
    loss, expected, clips = plain(double, method, streams)
    assert totals.loss == pytest.approx(loss, rel=1e-10)
    assert totals.clipped == clips
    same(grads, expected, tolerance=1e-10)


def test_the_moved_student_does_meet_the_clips(batch: Batch) -> None:
    assert 0 < run(batch, Method.load("opd"))[0].clipped < run(batch, Method.load("opd"))[0].tokens


@pytest.mark.parametrize("spec", ["sod", "opd-exact"])
@pytest.mark.parametrize("budget", [1, 90, 200])
def test_the_gradient_does_not_depend_on_the_micro_batches(batch: Batch, spec: str, budget: int) -> None:
    method = Method.load(spec)
    totals, grads = run(batch, method, budget=budget)
    whole, expected = run(batch, method, budget=100_000)
    assert totals.loss == pytest.approx(whole.loss, abs=1e-5)
    assert (totals.tokens, totals.clipped) == (whole.tokens, whole.clipped)
    same(grads, expected)


@pytest.mark.parametrize("spec", ["sod", "opd-exact", "gkd"])
@pytest.mark.parametrize("chunk", [1, 4])
def test_the_gradient_does_not_depend_on_the_chunks(
    batch: Batch, spec: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Method.load(spec)
    whole, expected = run(batch, method)
    monkeypatch.setattr(model_module, "CHUNK_ELEMENTS", chunk * batch.student.vocab_size)
    totals, grads = run(batch, method)
    assert totals.loss == pytest.approx(whole.loss, abs=1e-5)
    assert (totals.tokens, totals.clipped) == (whole.tokens, whole.clipped)
    same(grads, expected)


@pytest.mark.parametrize("spec", ["sod", "opd-exact"])
def test_no_more_than_a_chunk_of_the_vocabulary_is_kept_for_the_backward_pass(
    batch: Batch, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    width, alive, most = batch.student.vocab_size, 0, 0

    class Kept:
        """A saved tensor, counted while the graph holds it."""

        def __init__(self, value: Tensor) -> None:
            nonlocal alive, most
            self.value, self.rows = value, value.numel() // width if value.shape and value.shape[-1] == width else 0
            if self.rows and value.data_ptr() == batch.student.head.weight.data_ptr():
                self.rows = 0
            alive += self.rows
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= self.rows

    def peak() -> int:
        nonlocal alive, most
        alive = most = 0
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.value):
            run(batch, Method.load(spec))
        return most

    whole = peak()
    monkeypatch.setattr(model_module, "CHUNK_ELEMENTS", 4 * width)
    assert peak() < 0.3 * whole


def test_parts_of_a_batch_add_up_to_the_whole(batch: Batch) -> None:
    method = Method.load("sod")
    n = len(batch.scored.sequences)
    whole, expected = run(batch, method)
    first, a = run(batch, method, segments=range(2))
    rest, b = run(batch, method, segments=range(2, n))
    assert first.loss + rest.loss == pytest.approx(whole.loss, abs=1e-5)
    same([x + y for x, y in zip(a, b, strict=True)], expected)


def test_segments_without_weight_cost_no_pass(batch: Batch) -> None:
    method = Method.load("opd")
    coef = method.apply(batch.scored.table).coef.copy()
    first = batch.scored.sequences[0]
    coef[np.setdiff1d(np.arange(len(coef)), first.rows)] = 0
    totals, grads = run(batch, method, coef=coef)
    alone, expected = run(batch, method, coef=coef, segments=[0])
    assert totals.tokens == alone.tokens == len(first.rows)
    same(grads, expected)
    nothing, none = run(batch, method, coef=np.zeros_like(coef))
    assert (nothing, none) == (Totals(), [])


def test_a_teacher_equal_to_the_student_gives_no_loss_and_no_gradient(
    play: Callable[..., list[Trajectory]], make_lm: Maker
) -> None:
    student = make_lm(0)
    scored = score(student, TransformersScorer(make_lm(0)), trainable(play(0)), 1000)
    for spec in ("opd-exact", "opd", "gkd"):
        totals, grads = run(Batch(student, scored), Method.load(spec))
        assert abs(totals.loss) < 1e-5
        assert max(float(g.abs().max()) for g in grads) < 1e-4
    assert np.abs(scored.table["rkl"][scored.table.is_action]).max() < 1e-5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_advantage_that_is_not_finite_names_the_iteration_and_changes_no_weight(batch: Batch, bad: float) -> None:
    method = Method.load("opd")
    streams = method.apply(batch.scored.table)
    advantage = streams.advantage.copy()
    advantage[batch.scored.sequences[0].rows[0]] = bad
    before = [p.detach().clone() for p in batch.student.model.parameters()]
    with pytest.raises(UserError, match=r"the loss at iteration 3 is -?(nan|inf) \(trajectories \[.*0"):
        run(batch, method, replace(streams, advantage=advantage))
    assert all(torch.equal(a, b) for a, b in zip(before, batch.student.model.parameters(), strict=True))


@pytest.mark.parametrize("chunk", [1, 1000])
def test_a_loss_that_is_not_finite_leaves_no_gradient_behind_even_of_what_came_before(
    batch: Batch, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "CHUNK_ELEMENTS", chunk * batch.student.vocab_size)
    method = Method.load("opd")
    streams = method.apply(batch.scored.table)
    advantage = streams.advantage.copy()
    lengths = [len(s.ids) for s in batch.scored.sequences]
    advantage[batch.scored.sequences[int(np.argmin(lengths))].rows[-1]] = np.nan  # the shortest goes last
    with pytest.raises(UserError, match="the loss at iteration 3 is nan"):
        run(batch, method, replace(streams, advantage=advantage), budget=1)
    assert all(p.grad is None for p in batch.student.model.parameters())


class Poisoned:
    """A distribution in which something went wrong."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def logprobs(self, rows: slice) -> Tensor:
        out: Tensor = self.inner.logprobs(rows)
        return out.fill_(float("nan"))


def test_a_teachers_distribution_that_is_not_finite_names_the_iteration(batch: Batch) -> None:
    answers = list(batch.scored.answers or [])
    answers[1] = TeacherScores(answers[1].logprobs, None, Poisoned(answers[1].distribution))
    broken = Batch(batch.student, replace(batch.scored, answers=answers))
    with pytest.raises(UserError, match="the loss at iteration 3 is nan"):
        run(broken, Method.load("opd-exact"))


def test_a_teachers_score_that_is_not_finite_is_found_before_any_loss(batch: Batch) -> None:
    column = batch.scored.table["teacher"].copy()
    row = int(batch.scored.sequences[-1].rows[0])
    column[row] = np.nan
    with pytest.raises(UserError, match=f"column 'teacher' is nan at row {row} "):
        Method.load("sod").apply(batch.scored.table.with_column("teacher", column))


# Every episode of a tiny world: two messages, of two tokens and of one, from a vocabulary of four.
V = 4
EPISODES = list(itertools.product(range(V), repeat=3))


def tiny_world(tokenizer: PreTrainedTokenizerFast, seed: int) -> CausalLM:
    config = LlamaConfig(
        vocab_size=V, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=16, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(25)
    return CausalLM(model, tokenizer, f"world-{seed}")


def episode(tokens: tuple[int, ...], k: int) -> Trajectory:
    zeros = [0.0] * 2
    turns = [
        Turn([0, 1], list(tokens[:2]), "", "", zeros, zeros, fresh=True),
        Turn([2], list(tokens[2:]), "", "", zeros[:1], zeros[:1]),
    ]
    return Trajectory(f"e{k}", "x", k, "x", [], turns, StopReason.MAX_TURNS)


@pytest.fixture
def world(tokenizer: PreTrainedTokenizerFast) -> tuple[Batch, np.ndarray, Tensor]:
    """The scored batch of all episodes, each episode's probability, and log π − log T of each, differentiable."""
    student, teacher = tiny_world(tokenizer, 1), tiny_world(tokenizer, 2)
    scored = score(student, TransformersScorer(teacher), [episode(e, k) for k, e in enumerate(EPISODES)], 10_000)
    ids = torch.tensor(np.stack([s.ids for s in scored.sequences]))
    at = torch.tensor([1, 2, 4])
    ours = torch.log_softmax(student.model(input_ids=ids).logits[:, at], -1)
    theirs = torch.log_softmax(teacher.model(input_ids=ids).logits[:, at], -1).detach()
    picked = [x.gather(2, ids[:, at + 1][..., None])[..., 0] for x in (ours, theirs)]
    chance = picked[0].sum(1).exp().detach()
    assert float(chance.sum()) == pytest.approx(1, abs=1e-5)
    assert 0.3 < scored.kl[scored.table.is_action].mean() < 10
    return Batch(student, scored), chance.double().numpy(), (picked[0] - picked[1]).sum(1)


def expected(batch: Batch, chance: np.ndarray, spec: Any) -> list[Tensor]:
    """The gradient through `accumulate` with each episode weighted by its probability."""
    coef = np.where(batch.scored.table.is_action, chance[batch.scored.table.trajectory], 0.0)
    return run(batch, Method.load(spec), coef=coef)[1]


@pytest.mark.parametrize("spec", ["opd", "vopd"])
def test_the_policy_gradient_is_the_exact_reverse_kls_in_expectation(
    world: tuple[Batch, np.ndarray, Tensor], spec: str
) -> None:
    batch, chance, _ = world
    same(expected(batch, chance, spec), expected(batch, chance, "opd-exact"), tolerance=1e-4)


def test_credit_to_the_end_is_the_gradient_of_the_whole_episodes_reverse_kl(world: tuple[Batch, np.ndarray, Tensor]) -> None:
    batch, chance, log_ratio = world
    log_chance = torch.tensor(chance).float()
    got = expected(batch, chance, {"preset": "opd", "signal": {"kind": "opd", "gamma": 1.0}})
    # Σ p(e) (log π(e) − log T(e)); d p(e) = p(e) d log π(e), and log π(e) = log-ratio + log T(e), which is constant
    objective = (log_chance * (log_ratio * log_ratio.detach() + log_ratio)).sum()
    want = torch.autograd.grad(objective, list(batch.student.model.parameters()))
    same(got, list(want), tolerance=1e-4)
    assert max(float((a - b).abs().max()) for a, b in zip(got, expected(batch, chance, "opd"), strict=True)) > 1e-2
