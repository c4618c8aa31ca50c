"""From logits to tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdistill.policies.base import COOLEST, SamplingParams
from agentdistill.policies.sampling import BLOCK, choose, draw, truncate

LOGITS = torch.tensor([[1.0, 3.0, 2.0, -1.0, 0.0]])


def test_temperature_zero_takes_the_likeliest_token_and_reports_temperature_one() -> None:
    ids, at_t, at_one = choose(LOGITS, SamplingParams(temperature=0), [0.99])
    assert ids == [1]
    assert at_t == at_one == pytest.approx([torch.log_softmax(LOGITS, -1)[0, 1].item()])


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_evenly_spread_draws_give_the_tempered_frequencies(temperature: float) -> None:
    n = 4000
    params = SamplingParams(temperature=temperature)
    ids, at_t, at_one = choose(LOGITS.expand(n, -1), params, [(i + 0.5) / n for i in range(n)])
    expected = torch.softmax(LOGITS[0] / temperature, -1)
    counts = torch.bincount(torch.tensor(ids), minlength=5) / n
    torch.testing.assert_close(counts, expected, atol=1 / n, rtol=0)
    assert at_t[0] == pytest.approx(expected[ids[0]].log().item(), abs=1e-6)
    assert at_one[0] == pytest.approx(torch.log_softmax(LOGITS[0], -1)[ids[0]].item(), abs=1e-6)


def test_tokens_cut_by_top_k_and_top_p_are_never_drawn() -> None:
    draws = [i / 1000 for i in range(1000)]
    rows = LOGITS.expand(1000, -1)
    assert set(choose(rows, SamplingParams(top_k=2), draws)[0]) == {1, 2}
    assert set(choose(rows, SamplingParams(top_p=0.7), draws)[0]) == {1, 2}
    assert set(choose(rows, SamplingParams(top_p=1e-9), draws)[0]) == {1}


@settings(deadline=None)
@given(st.lists(st.floats(-8, 8), min_size=2, max_size=12, unique=True), st.integers(0, 14), st.floats(0.01, 1.0))
def test_truncation_keeps_the_smallest_likely_set(logits: list[float], top_k: int, top_p: float) -> None:
    probs = torch.softmax(torch.tensor([logits], dtype=torch.float64), -1)
    kept = truncate(probs, top_k, top_p)[0]
    alive = kept > 0
    assert alive[probs[0].argmax()]
    torch.testing.assert_close(kept[alive], probs[0][alive], rtol=0, atol=0)
    if 0 < top_k < len(logits):
        assert (probs[0] > probs[0][alive].min()).sum() < top_k  # equals of the last one may stay
    if alive.any() and (~alive).any():
        assert probs[0][alive].min() >= probs[0][~alive].max()
    pool = truncate(probs, top_k, 1.0)[0]  # top-p is taken of what top-k left
    assert kept.sum() >= top_p * pool.sum() - 1e-12
    assert alive.sum() == 1 or kept.sum() - kept[alive].min() < top_p * pool.sum() + 1e-12


@pytest.mark.parametrize("temperature", [COOLEST, 1e-3])
def test_the_coolest_temperature_still_takes_the_likeliest_token(temperature: float) -> None:
    logits = torch.tensor([[90.0, 100.0, -100.0]])
    ids, tempered, _ = choose(logits, SamplingParams(temperature=temperature), [0.999])
    assert ids == [1]
    assert tempered == [0.0]


@pytest.mark.parametrize("temperature", [1e-40, 1e-5])
def test_a_temperature_that_leaves_the_range_of_floats_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"must be 0, which is greedy, or at least 0\.0001"):
        SamplingParams(temperature=temperature)


def test_a_mass_that_is_rounded_to_nothing_keeps_the_likeliest_token() -> None:
    logits = torch.tensor([[0.0, 1.0, 0.5]])
    assert choose(logits, SamplingParams(top_p=1e-46), [0.999])[0] == [1]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 3 * BLOCK + 5), st.floats(0, 1))
def test_a_draw_is_the_first_id_at_which_the_cumulated_weights_exceed_the_target(seed: int, width: int, empty: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    probs = torch.rand(8, width, generator=rng) * (torch.rand(8, width, generator=rng) >= empty)
    probs[:, width // 2] += 0.1
    uniforms = torch.rand(8, generator=rng, dtype=torch.float64)
    ids = draw(probs, uniforms)
    cumulative = probs.double().cumsum(-1)
    expected = torch.searchsorted(cumulative, (uniforms * cumulative[:, -1])[:, None], right=True)[:, 0]
    assert ids.tolist() == expected.tolist()


@pytest.mark.parametrize("width", [5, BLOCK, BLOCK + 1, 2 * BLOCK])
@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_ends_of_the_unit_interval_draw_the_first_and_the_last_id_of_any_weight(width: int, uniform: float) -> None:
    probs = torch.zeros(1, width)
    probs[0, [1, width - 2]] = torch.tensor([0.3, 0.7])
    assert draw(probs, torch.tensor([uniform], dtype=torch.float64)).item() == (1 if uniform == 0 else width - 2)
