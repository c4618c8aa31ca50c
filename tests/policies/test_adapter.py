"""LoRA: one set of weights, several models; adapters on disk name their base and are held against it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from agentdistill.errors import UserError
from agentdistill.policies.adapter import Adapted, attach, base_of, chosen
from agentdistill.policies.base import ScoreRequest
from agentdistill.policies.identity import weights
from agentdistill.policies.load import load_model, load_tokenizer
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.training.optim import adamw
from agentdistill.training.state import save_model
from agentdistill.training.teachers import frozen_copy, own_weights
from tests.needs import needs

needs("peft", "pip install 'agentdistill[lora]'")

ASKED = [ScoreRequest(list(range(5, 45)), list(range(1, 40))), ScoreRequest(list(range(50, 70)), [3, 9, 19])]


def said(lm: CausalLM) -> torch.Tensor:
    return torch.cat([scores.logprobs for scores in TransformersScorer(lm).score(ASKED)])


def worn(make_lm: Callable[[int], CausalLM], seed: int = 3, targets: str = "all-linear") -> Adapted:
    return attach(make_lm(1), r=4, alpha=8, targets=targets, seed=seed, base="some/model")


def taught(lm: Adapted, seed: int = 0) -> Adapted:
    """Gives the adapter weights that it could have learnt."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for tensor in lm.own().values():
            tensor.add_(0.2 * torch.randn_like(tensor))
    return lm


def memory(lm: CausalLM) -> set[int]:
    return {p.data_ptr() for p in lm.named_weights().values()}


@pytest.fixture
def saved(make_lm: Callable[[int], CausalLM], tmp_path: Path) -> Path:
    """A base in one folder of a run and an adapter of it in another; `said.pt` is what it says."""
    save_model(tmp_path / "run" / "student", make_lm(1))
    base = load_model(str(tmp_path / "run" / "student"))
    lm = taught(attach(base, r=4, alpha=8, targets="all-linear", seed=3, base=str(tmp_path / "run" / "student")))
    save_model(tmp_path / "run" / "final", lm)
    torch.save(said(lm), tmp_path / "run" / "said.pt")
    return tmp_path / "run"


def test_a_new_adapter_changes_no_log_prob_and_only_it_is_trained(make_lm: Callable[[int], CausalLM]) -> None:
    lm = worn(make_lm)
    assert torch.equal(said(lm), said(make_lm(1)))
    trained = {id(p) for group in adamw(lm.model, 1e-3, (0.9, 0.999), 0.0).param_groups for p in group["params"]}
    assert trained == {id(p) for p in lm.own().values()}
    assert {p.dtype for p in lm.own().values()} == {torch.float32}
    assert len(lm.own()) == 2 * 2 * 7  # two matrices for each of a Llama layer's seven linear ones, in two layers


def test_without_its_adapter_a_model_is_what_it_was_bit_for_bit_in_the_same_memory(make_lm: Callable[[int], CausalLM]) -> None:
    before = make_lm(1)
    frozen = frozen_copy(before, "copy")
    lm = attach(before, r=4, alpha=8, targets="all-linear", seed=3, base="b")
    initial = own_weights(lm, "initial")
    mine = said(taught(lm))
    assert torch.equal(said(initial), said(frozen))
    assert not torch.allclose(mine, said(initial), atol=1e-3)
    assert torch.equal(said(lm), mine)  # and it is on again afterwards
    assert memory(initial) < memory(lm)  # a frozen copy would have storage of its own
    assert not memory(initial) & memory(frozen)
    assert all(p.requires_grad for p in lm.own().values())
    assert not initial.own()


def test_an_average_is_another_adapter_over_the_same_weights(make_lm: Callable[[int], CausalLM]) -> None:
    lm = taught(worn(make_lm))
    average = own_weights(lm, "ema")
    assert torch.equal(said(average), said(lm))
    was = said(lm)
    taught(lm, seed=5)
    assert torch.equal(said(average), was)
    assert not torch.allclose(said(lm), was, atol=1e-3)
    shared = memory(average) & memory(lm)
    assert len(memory(lm) - shared) == len(lm.own())
    assert lm.own().keys() == average.own().keys()


def test_live_is_the_student_itself(make_lm: Callable[[int], CausalLM]) -> None:
    lm = worn(make_lm)
    assert own_weights(lm, "live") is lm


def test_a_model_below_an_adapter_is_known_as_the_plain_model(make_lm: Callable[[int], CausalLM]) -> None:
    lm = taught(worn(make_lm))
    assert weights(own_weights(lm, "initial")) == weights(make_lm(1))
    assert weights(lm) != weights(make_lm(1))


def test_first_matrices_follow_from_the_seed_alone(make_lm: Callable[[int], CausalLM]) -> None:
    torch.manual_seed(1)
    one = worn(make_lm).own()
    torch.manual_seed(2)
    same, other = worn(make_lm).own(), worn(make_lm, seed=4).own()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_saved_adapter_names_its_base_and_says_the_same_bit_for_bit_when_loaded(saved: Path, tmp_path: Path) -> None:
    assert not (saved / "final" / "model.safetensors").exists()
    moved = shutil.move(saved, tmp_path / "elsewhere")
    lm = load_model(f"{moved}/final")
    assert isinstance(lm, Adapted)
    assert lm.base == f"{moved}/student"
    assert torch.equal(said(lm), torch.load(Path(moved) / "said.pt"))
    assert load_tokenizer(f"{moved}/final").get_vocab() == load_tokenizer(f"{moved}/student").get_vocab()


def test_a_base_outside_of_the_run_is_named_from_anywhere(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved)
    base = load_model("student")
    save_model(tmp_path / "other" / "final", attach(base, r=2, alpha=2, targets="q_proj", seed=0, base="student"))
    monkeypatch.chdir("/")
    assert base_of(str(tmp_path / "other" / "final")) == str(saved / "student")


def test_plain_peft_reads_a_saved_adapter(saved: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(str(saved / "final"))
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        logprobs = torch.log_softmax(model(input_ids=ids).logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]
    assert torch.allclose(logprobs, torch.load(saved / "said.pt")[:39], atol=1e-5)


def test_an_adapter_over_a_changed_base_is_refused(saved: Path, make_lm: Callable[[int], CausalLM]) -> None:
    save_model(saved / "student", make_lm(2))
    with pytest.raises(UserError, match="whose weights are not what they were"):
        load_model(str(saved / "final"))


def test_an_adapter_of_another_shape_damaged_or_without_a_base_is_refused(
    saved: Path, make_lm: Callable[[int], CausalLM]
) -> None:
    about = saved / "final" / "base.json"
    about.write_text(json.dumps({"base": "../student"}))
    config = saved / "final" / "adapter_config.json"
    sound = json.loads(config.read_text())
    config.write_text(json.dumps({**sound, "target_modules": ["q_proj"]}))
    with pytest.raises(UserError, match=r"they differ in 'model\.layers\.0"):
        load_model(str(saved / "final"))
    config.write_text(json.dumps({**sound, "peft_type": "IA3", "feedforward_modules": []}))
    with pytest.raises(UserError, match="IA3"):
        load_model(str(saved / "final"))
    config.write_text(json.dumps(sound))
    tensors = saved / "final" / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    with pytest.raises(UserError, match="could not be loaded onto model"):
        load_model(str(saved / "final"))
    about.write_text(json.dumps({"base": ""}))
    config.write_text(json.dumps({**sound, "base_model_name_or_path": None}))
    with pytest.raises(UserError, match="does not say which model"):
        base_of(str(saved / "final"))


def test_merged_weights_give_the_same_log_probs_as_an_ordinary_model(saved: Path) -> None:
    lm = load_model(str(saved / "final"))
    assert isinstance(lm, Adapted)
    merged = lm.merged()
    assert type(merged) is CausalLM
    assert (said(merged) - torch.load(saved / "said.pt")).abs().max() < 1e-5
    assert not [name for name in merged.own() if "lora" in name or "base_layer" in name]
    save_model(saved / "merged", merged)
    assert torch.equal(said(load_model(str(saved / "merged"))), said(merged))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_prj"], "'q_prj'.*did you mean 'q_proj'"),
        (["q_proj", "lm_head"], "'lm_head', the output head"),
        (["layers.7.self_attn.q_proj"], "no such linear layer"),
        (["embed_tokens"], "no such linear layer"),
    ],
)
def test_layers_that_are_none_are_refused_by_name(make_lm: Callable[[int], CausalLM], targets: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen(make_lm(1), targets)


def test_layers_may_be_named_one_by_one(make_lm: Callable[[int], CausalLM]) -> None:
    lm = attach(make_lm(1), r=2, alpha=2, targets=["v_proj", "layers.1.self_attn.q_proj"], seed=0, base="b")
    layers = sorted({name.partition(".lora")[0] for name in lm.own()})
    assert layers == ["model.layers.0.self_attn.v_proj", "model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"]
