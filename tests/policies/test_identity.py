"""A model is its weights and its vocabulary, wherever it was loaded from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from agentdistill.policies.identity import identify, vocabulary
from agentdistill.policies.load import load_model
from agentdistill.policies.model import CausalLM
from agentdistill.training.state import save_model


def test_a_saved_copy_is_the_same_model_and_a_changed_weight_makes_another(
    make_lm: Callable[[int], CausalLM], tmp_path: Path
) -> None:
    lm = make_lm(0)
    save_model(tmp_path / "copy", lm)
    copy = load_model(str(tmp_path / "copy"))
    ours, theirs = identify(lm), identify(copy)
    assert (ours.weights, ours.vocabulary) == (theirs.weights, theirs.vocabulary)
    assert theirs.model == str(tmp_path / "copy")
    with torch.no_grad():
        next(copy.model.parameters()).view(-1)[0] += 1e-3
    assert identify(copy).weights != ours.weights
    assert identify(make_lm(1)).weights != ours.weights


def test_what_a_scorer_is_shown_is_part_of_it(make_lm: Callable[[int], CausalLM]) -> None:
    lm = make_lm(0)
    assert (identify(lm).prompt, identify(lm, as_student=True).prompt) == ("teacher", "student")


def test_a_vocabulary_is_its_tokens_with_their_ids(
    tokenizer: PreTrainedTokenizerFast, thinking_tokenizer: PreTrainedTokenizerFast
) -> None:
    assert vocabulary(tokenizer) != vocabulary(thinking_tokenizer)
    assert vocabulary(tokenizer) == vocabulary(type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer))
