"""The head's gradient in chunks against plain autograd: tied or not, in every dtype, and what never reaches it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from agentdistill.errors import UserError
from agentdistill.policies import model as model_module
from agentdistill.policies.model import CausalLM, chunk_rows
from agentdistill.training.head import backward_through_head, loss_through_head

V = 24
IDS = torch.tensor([[1, 5, 2, 9, 11, 3, 20, 7], [4, 4, 8, 23, 0, 15, 6, 2]])
TARGETS = torch.tensor([3, 0, 7, 9, 23, 1, 1, 12, 5, 5, 2, 8, 19, 4, 0, 6])

Make = Callable[..., CausalLM]


@pytest.fixture
def make(tokenizer: PreTrainedTokenizerFast) -> Make:
    def made(*, tied: bool = False, dtype: torch.dtype = torch.float64, vocab: int = V) -> CausalLM:
        config = LlamaConfig(
            vocab_size=vocab, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied,
        )  # fmt: skip
        torch.manual_seed(3)
        model = LlamaForCausalLM(config)
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(20)
        return CausalLM(model.to(dtype), tokenizer, "m")

    return made


@pytest.fixture
def in_threes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(model_module, "CHUNK_ELEMENTS", 3 * V)
    return


def some_loss(part: slice, logits: Tensor) -> Tensor:
    """Anything that tells the positions apart and is not linear in the logits."""
    logprobs = torch.log_softmax(logits, -1)
    weight = torch.arange(1, 17, dtype=logits.dtype)[part]
    picked = logprobs.gather(1, TARGETS[part, None])[:, 0]
    return (weight * (picked.square() + (logprobs.exp() * logprobs).sum(-1))).sum()


def gradients(lm: CausalLM) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in lm.model.named_parameters() if p.grad is not None}


def chunked(lm: CausalLM) -> dict[str, Tensor]:
    lm.model.zero_grad(set_to_none=True)
    backward_through_head(lm, lm.hidden(IDS).flatten(0, 1), some_loss)
    return gradients(lm)


def whole(lm: CausalLM) -> dict[str, Tensor]:
    lm.model.zero_grad(set_to_none=True)
    some_loss(slice(None), lm.logits(lm.hidden(IDS).flatten(0, 1))).backward()
    return gradients(lm)


@pytest.mark.usefixtures("in_threes")
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_gradients_equal_plain_autograds(make: Make, tied: bool, dtype: torch.dtype, tolerance: float) -> None:
    lm = make(tied=tied, dtype=dtype)
    got, expected = chunked(lm), whole(lm)
    assert ("lm_head.weight" in got) is not tied
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert float(value.abs().max()) > 1e-3
        torch.testing.assert_close(got[name], value, rtol=tolerance, atol=tolerance * float(value.abs().max()))


@pytest.mark.usefixtures("in_threes")
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_as_a_step_of_a_forward_pass_it_gives_the_same_gradients(make: Make, tied: bool, frozen: bool) -> None:
    lm = make(tied=tied)
    lm.head.weight.requires_grad_(not frozen)
    expected = chunked(lm)
    lm.model.zero_grad(set_to_none=True)
    value = loss_through_head(lm, lm.hidden(IDS).flatten(0, 1), some_loss)
    assert not gradients(lm)
    assert value.shape == ()
    value.backward()
    got = gradients(lm)
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("in_threes")
def test_gradients_are_added_to_those_that_are_there(make: Make) -> None:
    lm = make(tied=True)
    expected = whole(lm)
    backward_through_head(lm, lm.hidden(IDS).flatten(0, 1), some_loss)
    for name, value in gradients(lm).items():
        torch.testing.assert_close(value, 2 * expected[name], rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("in_threes")
def test_a_frozen_head_gets_no_gradient_and_passes_the_bodys_on(make: Make) -> None:
    lm = make()
    expected = whole(lm)
    lm.head.weight.requires_grad_(False)
    got = chunked(lm)
    assert lm.head.weight.grad is None
    assert got.keys() == expected.keys() - {"lm_head.weight"}
    for name, value in got.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("in_threes")
def test_a_bias_of_the_head_is_trained_too(make: Make) -> None:
    lm = make()
    lm.model.lm_head = nn.Linear(16, V, dtype=torch.float64)
    got, expected = chunked(lm), whole(lm)
    assert "lm_head.bias" in got
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("in_threes")
def test_under_a_bf16_body_the_head_and_its_gradient_are_fp32(make: Make) -> None:
    lm = make(dtype=torch.bfloat16)
    lm.model.lm_head.float()
    got, expected = chunked(lm), whole(lm)
    assert got["lm_head.weight"].dtype == torch.float32
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        tolerance = 1e-5 if value.dtype == torch.float32 else 1e-2
        torch.testing.assert_close(got[name], value, rtol=tolerance, atol=tolerance * float(value.abs().max()))


def test_gradients_of_a_bf16_head_are_summed_in_fp32(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five hundred equal shares, the last of which a bf16 sum (8 bits) would swallow."""
    monkeypatch.setattr(model_module, "CHUNK_ELEMENTS", V)
    lm = make(dtype=torch.bfloat16)
    for _ in range(2):  # the second time they are added to what is there
        states = lm.hidden(IDS)[0, :1].expand(500, -1)
        backward_through_head(lm, states, lambda part, logits: torch.log_softmax(logits, -1)[:, 5].sum())
    logits = lm.logits(states[:1].detach()).requires_grad_()
    (slope,) = torch.autograd.grad(torch.log_softmax(logits, -1)[:, 5].sum(), logits)
    expected = 1000 * slope.T @ states[:1].detach().float()
    assert lm.head.weight.grad is not None
    assert lm.head.weight.grad.dtype == torch.bfloat16
    torch.testing.assert_close(lm.head.weight.grad.float(), expected, rtol=2**-8, atol=1e-4)


@pytest.mark.usefixtures("in_threes")
def test_every_position_goes_through_the_head_once_in_chunks_of_equal_size(make: Make) -> None:
    lm = make()
    sizes: list[int] = []
    lm.head.register_forward_hook(lambda module, given, out: sizes.append(len(given[0])))
    backward_through_head(lm, lm.hidden(IDS).flatten(0, 1)[:7], lambda part, logits: logits.square().sum())
    assert sorted(sizes) == [2, 2, 3]


@pytest.mark.usefixtures("in_threes")
def test_what_the_loss_raises_stops_before_the_bodys_backward_pass(make: Make) -> None:
    lm = make()

    def third_fails(part: slice, logits: Tensor) -> Tensor:
        if part.start >= 6:
            raise UserError("no")
        return logits.sum()

    with pytest.raises(UserError, match=r"^no$"):
        backward_through_head(lm, lm.hidden(IDS).flatten(0, 1), third_fails)
    assert all(p.grad is None for p in lm.model.model.parameters())


def test_a_head_with_something_around_it_is_refused_by_name(make: Make) -> None:
    lm = make()

    class Adapted(nn.Linear):
        pass

    states = lm.hidden(IDS).flatten(0, 1)
    lm.model.lm_head = Adapted(16, V, bias=False, dtype=torch.float64)
    with pytest.raises(UserError, match="the output head of model 'm' is a Adapted; only a plain linear one"):
        backward_through_head(lm, states, some_loss)


def test_a_chunk_has_at_least_one_row(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    head = make().head
    for elements, rows in ((1, 1), (V, 1), (5 * V + 1, 5)):
        monkeypatch.setattr(model_module, "CHUNK_ELEMENTS", elements)
        assert chunk_rows(head) == rows
