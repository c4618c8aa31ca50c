"""The model split into body and head, and vocabularies that must agree."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, PreTrainedTokenizerFast

from agentdistill.errors import UserError
from agentdistill.policies.model import CausalLM, pad_right, require_same_vocabulary
from agentdistill.policies.tiny import train_tokenizer


def test_padding_to_the_right_changes_no_real_position(make_lm: Callable[[int], CausalLM]) -> None:
    lm = make_lm(0)
    rows = [[5, 6, 7, 8, 9, 10], [11, 12]]
    with torch.no_grad():
        both = lm.hidden(pad_right(rows, lm.device))
        alone = lm.hidden(torch.tensor([rows[1]]))
    torch.testing.assert_close(both[1, :2], alone[0], atol=1e-5, rtol=0)


def test_head_and_body_together_are_the_model(make_lm: Callable[[int], CausalLM]) -> None:
    lm = make_lm(0)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(lm.logits(lm.hidden(ids)), lm.model(input_ids=ids).logits)
    assert lm.vocab_size == len(lm.tokenizer)
    assert lm.context == 512


def gemma(**changes: object) -> torch.nn.Module:
    config = Gemma2Config(
        vocab_size=300, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=1,
        num_key_value_heads=1, head_dim=32, **changes,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def test_a_model_that_caps_its_logits_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    full = {"layer_types": ["full_attention"] * 2}
    with pytest.raises(UserError, match="'soft' transforms its logits after the output head"):
        CausalLM(gemma(final_logit_softcapping=0.01, **full), tokenizer, "soft")
    assert CausalLM(gemma(final_logit_softcapping=None, **full), tokenizer, "plain")


def test_a_model_with_windowed_attention_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    layers = ["sliding_attention", "full_attention"]
    with pytest.raises(UserError, match="'w' has sliding_attention layers"):
        CausalLM(gemma(layer_types=layers, final_logit_softcapping=None), tokenizer, "w")


def test_two_tokenizers_of_one_vocabulary_agree(tokenizer: PreTrainedTokenizerFast) -> None:
    require_same_vocabulary(tokenizer, tokenizer, "twin")


def test_a_teacher_of_another_vocabulary_is_refused_by_its_first_difference(tokenizer: PreTrainedTokenizerFast) -> None:
    other = train_tokenizer(["zebra zebra zebra"], 280)
    with pytest.raises(UserError, match=r"teacher 'big' have different vocabularies .* first difference: ") as caught:
        require_same_vocabulary(tokenizer, other, "big")
    ours, theirs = tokenizer.get_vocab(), other.get_vocab()
    first = min(t for t in ours.keys() | theirs.keys() if ours.get(t) != theirs.get(t))
    assert f"{first!r} is id {ours.get(first)} for the student and {theirs.get(first)} for the teacher" in str(caught.value)
