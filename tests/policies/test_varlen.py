"""Several sequences in one row: each is as if it were alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from agentdistill.policies import shared
from agentdistill.policies.adapter import attach
from agentdistill.policies.model import CausalLM
from agentdistill.policies.shared import states_at
from agentdistill.policies.varlen import row_mask
from agentdistill.training.recompute import recomputing
from tests.needs import needs

SIZES = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
KINDS = {
    "llama": {**SIZES, "num_key_value_heads": 2},
    "qwen3": {**SIZES, "num_key_value_heads": 2, "head_dim": 8},
    "gpt2": {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4},
}
LENGTHS = st.lists(st.integers(1, 24), min_size=1, max_size=6)


def made(kind: str, tokenizer: PreTrainedTokenizerFast, attention: str = "sdpa", **settings: object) -> CausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = AutoConfig.for_model(kind, **settings)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(4)  # so that what is attended to matters
    return CausalLM(model, tokenizer, kind)


@pytest.fixture(scope="module", params=[*KINDS, "lora"])
def lm(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> CausalLM:
    if request.param != "lora":
        return made(request.param, tokenizer, **KINDS[request.param])
    needs("peft", "pip install 'agentdistill[lora]'")
    adapted = attach(made("llama", tokenizer, **KINDS["llama"]), r=2, alpha=4, targets="all-linear", seed=0, base="x")
    with torch.no_grad():
        for p in adapted.own().values():
            p.add_(0.1)
    return adapted


def drawn(alike: int, own: list[int]) -> list[list[int]]:
    rng = np.random.default_rng(sum(own) + alike)
    beginning = rng.integers(5, 290, alike).tolist()
    return [[*beginning, *rng.integers(5, 290, n).tolist()] for n in own]


def gradients(lm: CausalLM, loss: Tensor) -> dict[str, Tensor]:
    lm.model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in lm.model.named_parameters() if p.grad is not None}


def alone(lm: CausalLM, sequences: list[list[int]]) -> Tensor:
    return torch.cat([lm.hidden(torch.tensor([each]))[0] for each in sequences])


def whole(sequences: list[list[int]]) -> list[np.ndarray]:
    return [np.arange(len(each)) for each in sequences]


@given(own=LENGTHS, alike=st.sampled_from([0, 0, 3, 20]))
@settings(max_examples=12, deadline=None)
def test_states_loss_and_gradients_are_those_of_each_sequence_alone(lm: CausalLM, own: list[int], alike: int) -> None:
    sequences = drawn(alike, own)
    assert lm.packed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "LEAST", 1)
        first = min(alike, min(map(len, sequences)) - 1)  # what begins alike has one column that is asked for
        columns = [np.arange(first, len(each)) for each in sequences]
        found = states_at(lm, sequences, columns)
    expected = alone(lm, sequences)
    places = np.concatenate([c + s for c, s in zip(columns, np.cumsum([0, *map(len, sequences[:-1])]), strict=True)])
    expected = expected[torch.as_tensor(places)]
    scale = max(1.0, float(expected.detach().abs().max()))
    torch.testing.assert_close(found, expected, atol=2e-5 * scale, rtol=0)
    wanted = torch.arange(len(found)) % 290
    losses = [F.cross_entropy(lm.logits(each), wanted) for each in (found, expected)]
    assert float(losses[0].detach()) == pytest.approx(float(losses[1].detach()), rel=2e-5)
    ours, theirs = (gradients(lm, loss) for loss in losses)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, atol=2e-5 * max(1.0, float(gradient.abs().max())), rtol=0)


def test_nothing_of_a_sequence_is_seen_by_those_behind_it_or_before_it(lm: CausalLM) -> None:
    sequences = drawn(0, [9, 17, 5])
    with torch.no_grad():
        before = states_at(lm, sequences, whole(sequences)).split([9, 17, 5])
        sequences[1] = [4 + token % 280 for token in sequences[1]]
        after = states_at(lm, sequences, whole(sequences)).split([9, 17, 5])
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])
    assert not torch.allclose(before[1], after[1], atol=1e-3)


@pytest.mark.parametrize("alike", [0, 30])
def test_a_row_whose_layers_are_computed_again_has_the_same_gradients(
    lm: CausalLM, alike: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "LEAST", 8)
    sequences = drawn(alike, [9, 40, 5])
    columns = [np.arange(alike, len(each) - 1) for each in sequences]
    found = []
    for again in (False, True):
        with recomputing(lm.model, again):
            found.append(gradients(lm, states_at(lm, sequences, columns).square().sum()))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_sequence_that_is_all_beginning_takes_no_place(make_lm: Callable[[int], CausalLM]) -> None:
    lm, sequence = make_lm(0), list(range(5, 140))
    columns = [np.array([], dtype=np.int64), np.array([135])]
    with torch.no_grad():
        found = states_at(lm, [sequence, [*sequence, 7]], columns)
        torch.testing.assert_close(found, lm.hidden(torch.tensor([[*sequence, 7]]))[0, 135:], atol=2e-5, rtol=0)


def test_an_attention_that_does_not_know_the_borders_refuses_them(make_lm: Callable[[int], CausalLM]) -> None:
    lm = make_lm(0)
    with pytest.raises(RuntimeError, match="attn_mask"):
        lm.hidden(torch.tensor([[5, 6, 7, 8]]), attention_mask=row_mask(0, [2, 2]))


UNABLE = {
    "an attention of its own": ("gpt2", "eager", KINDS["gpt2"]),
    "positions that are distances": (
        "falcon", "sdpa",
        {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
    ),
    "state that is no attention's": ("rwkv", "eager", {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2}),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNABLE)
def test_a_model_that_cannot_take_such_rows_is_found_out_and_gets_padded_ones(
    tokenizer: PreTrainedTokenizerFast, kind: str
) -> None:
    name, attention, about = UNABLE[kind]
    lm = made(name, tokenizer, attention, **about)
    assert not lm.packed
    sequences = drawn(150, [9, 17])
    with torch.no_grad():
        torch.testing.assert_close(states_at(lm, sequences, whole(sequences)), alone(lm, sequences), atol=1e-4, rtol=1e-4)


def test_a_model_that_counts_positions_itself_is_found_out(
    make_lm: Callable[[int], CausalLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = make_lm(0)
    body = type(lm.model.base_model)
    forward = body.forward

    def counting(self: torch.nn.Module, position_ids: Tensor | None = None, **kwargs: object) -> object:
        return forward(self, **kwargs)

    monkeypatch.setattr(body, "forward", counting)
    assert not CausalLM(lm.model, lm.tokenizer, "counting").packed
