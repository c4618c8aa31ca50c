"""Weights and optimizer state on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from agentdistill.errors import UserError
from agentdistill.policies.model import CausalLM
from agentdistill.policies.tiny import tiny_model
from agentdistill.training.optim import adamw, apply_step
from agentdistill.training.state import load_state, require_finite, save_state, writing

Maker = Callable[[int], CausalLM]
IDS = torch.tensor([[5, 6, 7, 8]])


def optimizer(lm: CausalLM) -> torch.optim.Optimizer:
    return adamw(lm.model, 1e-2, (0.9, 0.99), 0.01)


def step(lm: CausalLM, adam: torch.optim.Optimizer) -> None:
    lm.model(input_ids=IDS, labels=IDS).loss.backward()
    apply_step(adam, 1e-2, 1.0, "here")


def test_training_goes_on_to_the_same_bits(make_lm: Maker, tmp_path: Path) -> None:
    lm = make_lm(0)
    adam = optimizer(lm)
    step(lm, adam)
    save_state(tmp_path, lm, adam)
    step(lm, adam)
    other = make_lm(1)
    other_adam = optimizer(other)
    load_state(tmp_path, other, other_adam)
    step(other, other_adam)
    for (name, a), (_, b) in zip(lm.model.named_parameters(), other.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_tied_head_stays_tied(make_lm: Maker, tmp_path: Path) -> None:
    lm, other = make_lm(0), make_lm(1)
    save_state(tmp_path, lm, optimizer(lm))
    load_state(tmp_path, other, optimizer(other))
    assert other.head.weight is other.model.get_input_embeddings().weight
    assert torch.equal(other.head.weight, lm.head.weight)


def test_a_checkpoint_of_another_model_is_refused(make_lm: Maker, tmp_path: Path) -> None:
    lm = make_lm(0)
    save_state(tmp_path, lm, optimizer(lm))
    deeper = CausalLM(tiny_model("32x3", len(lm.tokenizer), 0), lm.tokenizer, "deeper")
    with pytest.raises(UserError, match=r"is of another model: it differs in 'model\.layers\.2"):
        load_state(tmp_path, deeper, optimizer(deeper))
    wider = CausalLM(tiny_model("64x2", len(lm.tokenizer), 0), lm.tokenizer, "wider")
    with pytest.raises(UserError, match=r"is of another model: 'model\.embed_tokens\.weight' has another shape"):
        load_state(tmp_path, wider, optimizer(wider))


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.pt"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "garbage"])
def test_a_damaged_checkpoint_is_one_sentence(make_lm: Maker, tmp_path: Path, name: str, damage: str) -> None:
    lm = make_lm(0)
    adam = optimizer(lm)
    step(lm, adam)
    save_state(tmp_path, lm, adam)
    file = tmp_path / name
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "garbage": b"garbage" * 99}[damage])
    with pytest.raises(UserError, match="cannot be read: ") as error:
        load_state(tmp_path, lm, adam)
    assert "\n" not in str(error.value)


def test_a_model_with_finite_weights_and_logits_passes(make_lm: Maker) -> None:
    require_finite(make_lm(0), [5, 6, 7], "step 1", "train.lr")


def test_weights_that_are_not_finite_are_named(make_lm: Maker) -> None:
    lm = make_lm(0)
    lm.model.get_parameter("model.layers.1.mlp.up_proj.weight").data[3, 4] = float("inf")
    with pytest.raises(UserError, match=r"step 1 left weights .*'model\.layers\.1\.mlp\.up_proj\.weight'.* Lower train\.lr"):
        require_finite(lm, [5, 6, 7], "step 1", "train.lr")


def test_finite_weights_that_overflow_inside_the_model_are_refused(make_lm: Maker) -> None:
    lm = make_lm(0)
    lm.model.get_parameter("model.norm.weight").data.fill_(3e38)
    with pytest.raises(UserError, match="step 1 left a model whose logits are not finite"):
        require_finite(lm, [5, 6, 7], "step 1", "train.lr")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])  # tokenizers writes one, Transformers the other
def test_a_full_disk_is_one_sentence_by_whichever_library_it_is_met(make_lm: Maker, tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    said = r"^tokenizer 't' could not be written: .*o space left on device.*; free some space, then go on with --resume$"
    with pytest.raises(UserError, match=said), writing("tokenizer 't'"):
        make_lm(0).tokenizer.save_pretrained(tmp_path)


def test_what_is_no_matter_of_the_disk_is_no_sentence_of_it() -> None:
    with pytest.raises(ZeroDivisionError), writing("x"):
        1 / 0  # noqa: B018
