"""What sequences begin alike with is computed once, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.policies import shared
from agentdistill.policies.base import Request, SamplingParams, ScoreRequest
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM, pad_right
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.policies.shared import budget_batches, common_prefix, computed, pass_tokens, states_at


@pytest.fixture
def lm(make_lm: Callable[[int], CausalLM]) -> CausalLM:
    return make_lm(0)


@pytest.fixture
def passes(lm: CausalLM, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of the ids that went through the model."""
    seen: list[tuple[int, ...]] = []
    lm.model.base_model.register_forward_pre_hook(
        lambda _, __, given: seen.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    monkeypatch.setattr(shared, "LEAST", 8)
    monkeypatch.setattr("agentdistill.policies.local.LEAST", 8)
    return seen


def rows(alike: int, *own: int) -> list[list[int]]:
    """Sequences with `alike` ids in common and so many of their own."""
    rng = np.random.default_rng(0)
    beginning = rng.integers(5, 90, alike).tolist()
    return [[*beginning, *([90 + i, *rng.integers(5, 90, n - 1).tolist()] if n else [])] for i, n in enumerate(own)]


@given(st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=12), max_size=20), st.integers(1, 60))
def test_batches_cover_every_sequence_once_within_the_budget(sequences: list[list[int]], budget: int) -> None:
    for packed in (True, False):
        batches = budget_batches(sequences, budget, packed)
        assert sorted(i for batch in batches for i in batch) == list(range(len(sequences)))
        for batch in batches:
            lengths = [len(sequences[i]) for i in batch]
            saved = (len(batch) - 1) * common_prefix([sequences[i] for i in batch])
            whole = sum(lengths) - (saved if saved >= shared.LEAST else 0)
            assert len(batch) == 1 or (whole if packed else len(batch) * max(lengths)) <= budget


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("budget", [1, 40, 64, 1000])
def test_what_is_said_to_be_computed_is_what_goes_through_the_model(
    lm: CausalLM, passes: list[tuple[int, ...]], budget: int, packed: bool
) -> None:
    sequences, lm.packed = rows(20, 5, 9, 3, 7), packed
    TransformersScorer(lm, budget=budget).score([ScoreRequest(ids, [len(ids) - 1]) for ids in sequences])
    assert computed(sequences, budget, packed) == sum(rows * columns for rows, columns in passes)


@given(st.lists(st.lists(st.integers(1, 2), max_size=8), min_size=1, max_size=6))
def test_the_common_beginning_is_the_longest_that_all_share(sequences: list[list[int]]) -> None:
    n = common_prefix(sequences)
    assert all(each[:n] == sequences[0][:n] for each in sequences)
    longer = {tuple(each[: n + 1]) for each in sequences}
    assert len(longer) > 1 or len(longer.pop()) == n


def test_episodes_of_one_task_share_a_pass_where_that_computes_less() -> None:
    first, second = rows(200, 60, 50, 40), rows(150, 70, 55, 45)
    second = [[7, *each[1:]] for each in second]
    mixed = [first[0], second[0], first[1], second[1], first[2], second[2]]
    assert budget_batches(mixed, 400) == [[0, 2, 4], [1, 3, 5]] or budget_batches(mixed, 400) == [[1, 3, 5], [0, 2, 4]]
    assert all(len(batch) == 1 for batch in budget_batches([[i, *each] for i, each in enumerate(mixed)], 400))


def test_padded_rows_count_whole() -> None:
    sequences = rows(200, 60, 50, 40)
    assert budget_batches(sequences, 400) == [[0, 1, 2]]
    assert budget_batches(sequences, 400, packed=False) == [[0], [1], [2]]
    assert (pass_tokens(sequences), pass_tokens(sequences, packed=False)) == (200 + 150, 3 * 260)


def test_sequences_of_any_length_fill_a_pass() -> None:
    sequences = [[i] * n for i, n in enumerate([90, 10, 60, 40])]
    assert sorted(map(sorted, budget_batches(sequences, 100))) == [[0, 1], [2, 3]] or computed(sequences, 100) == 200
    assert computed(sequences, 200) == 200
    assert computed(sequences, 200, packed=False) == 2 * 90 + 2 * 40


def test_of_batches_that_compute_the_same_the_more_equal_ones_are_taken() -> None:
    assert budget_batches([[i] * 50 for i in range(4)], 150) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("first", [0, -6], ids=["own", "beginning"])
@pytest.mark.parametrize(
    ("alike", "own"),
    [(20, (9, 5, 7)), (9, (30, 21, 17)), (12, (12, 12)), (24, (0, 0, 0)), (24, (0, 6))],
    ids=["mask", "square", "even", "one", "within"],
)
def test_states_and_gradients_are_those_of_whole_rows(
    lm: CausalLM, passes: list[tuple[int, ...]], alike: int, own: tuple[int, ...], first: int
) -> None:
    sequences = rows(alike, *own)
    columns = [np.arange(alike + first + i, len(each)) for i, each in enumerate(sequences)]
    found = {}
    weight = torch.randn(sum(map(len, columns)), int(lm.model.config.hidden_size), generator=torch.Generator().manual_seed(1))
    for name in ("whole", "shared"):
        if name == "whole":
            hidden = lm.hidden(pad_right(sequences, lm.device))
            states = torch.cat([hidden[i, each] for i, each in enumerate(columns)])
        else:
            passes.clear()
            states = states_at(lm, sequences, columns)
            assert passes == [(1, alike + sum(own))]
        lm.model.zero_grad()
        (states * weight).sum().backward()
        gradients = {key: p.grad.clone() for key, p in lm.model.named_parameters() if p.grad is not None}
        found[name] = states.detach(), gradients
    torch.testing.assert_close(found["shared"][0], found["whole"][0], atol=2e-5, rtol=1e-5)
    assert found["shared"][1].keys() == found["whole"][1].keys()
    for key, expected in found["whole"][1].items():
        torch.testing.assert_close(found["shared"][1][key], expected, atol=2e-5 * float(expected.abs().max()), rtol=1e-4)
    assert lm.model.config._attn_implementation == "sdpa"


def test_a_token_of_the_common_beginning_can_be_asked_for(lm: CausalLM, passes: list[tuple[int, ...]]) -> None:
    sequences = [*rows(20, 5, 5)]
    columns = [np.array([10, 22]), np.array([21])]
    with torch.no_grad():
        states, hidden = states_at(lm, sequences, columns), lm.hidden(pad_right(sequences, lm.device))
    assert passes[0] == (1, 20 + 5 + 5)
    expected = torch.stack([hidden[0, 10], hidden[0, 22], hidden[1, 21]])
    torch.testing.assert_close(states, expected, atol=2e-5, rtol=1e-5)


def test_sequences_without_a_common_beginning_go_whole(lm: CausalLM, passes: list[tuple[int, ...]]) -> None:
    sequences = [[i, *each] for i, each in enumerate(rows(20, 5, 5))]
    with torch.no_grad():
        states_at(lm, sequences, [np.array([20]), np.array([20])])
        states_at(lm, [sequences[0], sequences[0]], [np.array([], dtype=np.int64)] * 2)
    assert passes == [(1, 52), (1, 26)]


def test_a_scorer_says_of_a_group_what_it_says_of_each(lm: CausalLM, passes: list[tuple[int, ...]]) -> None:
    requests = [ScoreRequest(each, range(20, len(each))) for each in rows(20, 9, 5, 7)]
    together = TransformersScorer(lm).score(requests)
    assert passes == [(1, 20 + 9 + 5 + 7)]
    for request, answer in zip(requests, together, strict=True):
        alone = TransformersScorer(lm).score([request])[0]
        torch.testing.assert_close(answer.logprobs, alone.logprobs, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(answer.entropy, alone.entropy, atol=2e-5, rtol=1e-5)


def test_episodes_begun_together_prefill_their_system_prompt_and_each_task_once(
    lm: CausalLM, passes: list[tuple[int, ...]]
) -> None:
    tasks = rows(20, 15, 17)
    requests = [Request(k, tasks[k % 2], 40 + k, frozenset()) for k in range(6)]
    sampler, params = TransformersSampler(lm), SamplingParams(max_tokens=5)
    together = sampler.generate(requests, params)
    assert passes[:4] == [(1, 20), (1, 14), (1, 16), (6, 1)]
    assert sampler.forwarded == 20 + 14 + 16 + 6 + 6 * 4
    alone = [TransformersSampler(lm).generate([request], params)[0] for request in requests]
    assert [each.ids for each in together] == [each.ids for each in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    longer = [Request(r.key, [*r.context, *s.ids, 8, 9], 1, frozenset()) for r, s in zip(requests, together, strict=True)]
    later = sampler.generate(longer, params)
    assert [each.ids for each in later] == [TransformersSampler(lm).generate([r], params)[0].ids for r in longer]
