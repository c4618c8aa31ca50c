"""Model references: what loads, and what each bad one says in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from agentdistill.errors import UserError
from agentdistill.policies.load import check_reference, is_tiny, load_model, load_tokenizer
from agentdistill.policies.model import CausalLM


@pytest.fixture
def folder(make_lm: Callable[[int], CausalLM], tmp_path: Path) -> Path:
    lm = make_lm(2)
    lm.model.save_pretrained(tmp_path / "m")
    lm.tokenizer.save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def one_sentence(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def test_a_saved_folder_loads_to_the_same_model_in_fp32(folder: Path, make_lm: Callable[[int], CausalLM]) -> None:
    lm = load_model(str(folder))
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(lm.model(input_ids=ids).logits, make_lm(2).model(input_ids=ids).logits)
    assert {p.dtype for p in lm.model.parameters()} == {torch.float32}
    assert lm.name == str(folder)


def test_a_folder_in_bf16_is_loaded_as_fp32(folder: Path) -> None:
    load_model(str(folder)).model.to(torch.bfloat16).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert {p.dtype for p in load_model(str(folder)).model.parameters()} == {torch.float32}


def test_a_model_from_scratch_takes_the_runs_tokenizer_and_context(tokenizer: PreTrainedTokenizerFast) -> None:
    lm = load_model("tiny:32x1", tokenizer=tokenizer, seed=4, context=96)
    assert (lm.vocab_size, lm.context, lm.name) == (len(tokenizer), 96, "tiny:32x1")
    assert is_tiny("tiny:xs")
    assert not is_tiny("org/tiny")


def test_a_model_from_scratch_needs_a_tokenizer() -> None:
    with pytest.raises(UserError, match="needs a tokenizer trained on the environment first"):
        load_model("tiny:xs")


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("tiny:huge", "model 'tiny:huge' is unknown; write tiny:"),
        ("tiny:0x2", "model 'tiny:0x2' is unknown"),
        ("./nowhere", "there is no model folder './nowhere'"),
        ("/nowhere/at/all", "there is no model folder '/nowhere/at/all'"),
        ("~/no-such-folder-here", "there is no model folder"),
        ("runs/teacher", "there is no model folder 'runs/teacher'"),
        ("a/b/c", "there is no model folder 'a/b/c'"),
        ("pip:no-such-package", "model 'pip:no-such-package' needs the package"),
        ("pip:no.such.package", "needs the package"),
        ("pip:", "needs the package"),
        ("pip:json", "package 'json' holds no .gguf file"),
    ],
)
def test_what_could_never_load_is_refused_early(reference: str, says: str, tokenizer: PreTrainedTokenizerFast) -> None:
    for attempt in (check_reference, lambda ref: load_model(ref, tokenizer=tokenizer)):
        with pytest.raises(UserError) as error:
            attempt(reference)
        assert says in one_sentence(error)


def test_a_hub_model_that_is_not_here_and_cannot_be_fetched_is_one_sentence() -> None:
    check_reference("nobody/nothing@main")  # cannot be judged without the network
    for attempt in (load_model, load_tokenizer):
        with pytest.raises(UserError) as error:
            attempt("nobody/nothing")
        said = one_sentence(error)
        assert said.startswith("model 'nobody/nothing' is not on this machine, and the hub cannot be reached")
        assert "http" not in said


def test_a_name_that_no_hub_can_have_is_not_looked_for() -> None:
    with pytest.raises(UserError, match="model 'my model' is neither a folder here nor a name that the hub can have"):
        load_model("my model")


def test_a_missing_folder_inside_a_folder_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_reference("models/small")  # nothing here is called so: it may be the hub's
    (tmp_path / "models").mkdir()
    for attempt in (check_reference, load_model):
        with pytest.raises(UserError) as error:
            attempt("models/small")
        assert one_sentence(error).startswith("there is no model folder 'models/small', though 'models' is one")
    check_reference("models/small@main")  # a revision says that the hub's is meant


def test_a_folder_that_holds_no_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no config\.json"):
        check_reference(str(tmp_path))


def _truncate_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])


def _other_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))


def _other_kind(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))


DAMAGE = {
    "weights cut": _truncate_weights,
    "weights gone": lambda folder: (folder / "model.safetensors").unlink(),
    "weights of another shape": _other_shape,
    "config broken": lambda folder: (folder / "config.json").write_text("{"),
    "config of an unknown architecture": _other_kind,
    "tokenizer broken": lambda folder: (folder / "tokenizer.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_one_sentence(folder: Path, damage: str) -> None:
    DAMAGE[damage](folder)
    with pytest.raises(UserError) as error:
        load_model(str(folder))
    assert one_sentence(error).startswith(f"model '{folder}' could not be loaded: ")


def test_loaded_weights_stand_as_aligned_as_new_ones(tmp_path: Path, make_lm: Callable[[int], CausalLM]) -> None:
    """Off the usual 64 bytes the same weights round differently, and a resumed run gives other last digits."""
    made = make_lm(0)
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path)).model
    assert {tensor.data_ptr() % 64 for tensor in (*loaded.parameters(), *loaded.buffers())} == {0}
    assert loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight


def test_weights_with_a_hole_are_refused_and_not_filled_at_random(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    hole = next(name for name in weights if "mlp.up_proj" in name)
    save_file({name: tensor for name, tensor in weights.items() if name != hole}, path, {"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights of model .* are not in its files, such as") as error:
        load_model(str(folder))
    assert hole in one_sentence(error)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if "mlp.up_proj" in name)
    save_file({**weights, name: weights[name][:-1].clone()}, path, {"format": "pt"})
    with pytest.raises(UserError, match=r"shape|size mismatch"):
        load_model(str(folder))


@pytest.mark.parametrize("reference", ["~nobody-of-this-name/x", "x" * 5000, "/a\0b"])
def test_text_that_no_file_system_takes_is_no_model(reference: str) -> None:
    with pytest.raises(UserError, match="there is no model folder"):
        check_reference(reference)
