"""A model that comes as a GGUF file is read from it once; what is kept is the same to the bit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from agentdistill.policies import converted
from agentdistill.policies.load import load_model, load_tokenizer, read_config
from agentdistill.policies.model import CausalLM
from tests.needs import needs

WIDTH, WORDS = 32, 40


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An importable package with a small GGUF file of random weights in it, and an empty cache."""
    needs("gguf")
    name = f"small_gguf_{os.getpid()}_{abs(hash(tmp_path))}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    write_gguf(tmp_path / name / "small.gguf")
    monkeypatch.setenv(converted.CACHE, str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


def write_gguf(path: Path) -> None:
    import gguf

    rng = np.random.default_rng(0)
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(128)
    out.add_embedding_length(WIDTH)
    out.add_block_count(1)
    out.add_feed_forward_length(48)
    out.add_head_count(4)
    out.add_head_count_kv(2)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_freq_base(10_000.0)
    out.add_vocab_size(WORDS)
    letters = [chr(ord("a") + i) for i in range(26)]
    tokens = ["<|end|>", *letters, "ab", "cd", *(f"<|{i}|>" for i in range(WORDS - 29))]
    out.add_tokenizer_model("gpt2")
    out.add_token_list(tokens)
    out.add_token_merges(["a b", "c d"])
    out.add_token_types([3, *[1] * 28, *[3] * (WORDS - 29)])
    out.add_bos_token_id(0)
    out.add_eos_token_id(0)
    out.add_pad_token_id(0)
    shapes = {
        "token_embd": (WORDS, WIDTH), "output_norm": (WIDTH,), "blk.0.attn_norm": (WIDTH,), "blk.0.ffn_norm": (WIDTH,),
        "blk.0.attn_q": (WIDTH, WIDTH), "blk.0.attn_k": (WIDTH // 2, WIDTH), "blk.0.attn_v": (WIDTH // 2, WIDTH),
        "blk.0.attn_output": (WIDTH, WIDTH), "blk.0.ffn_gate": (48, WIDTH), "blk.0.ffn_up": (48, WIDTH),
        "blk.0.ffn_down": (WIDTH, 48),
    }  # fmt: skip
    for name, shape in shapes.items():
        out.add_tensor(f"{name}.weight", rng.standard_normal(shape).astype(np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def same(one: CausalLM, other: CausalLM) -> None:
    ours, theirs = one.model.state_dict(), other.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    ids = torch.tensor([[1, 5, 9, 30]])
    assert torch.equal(one.model(input_ids=ids).logits, other.model(input_ids=ids).logits)
    assert one.tokenizer.get_vocab() == other.tokenizer.get_vocab()
    assert one.tokenizer("abcde<|3|>")["input_ids"] == other.tokenizer("abcde<|3|>")["input_ids"]
    assert one.tokenizer.eos_token_id == other.tokenizer.eos_token_id
    assert one.name == other.name


def test_the_second_time_it_is_read_from_what_was_kept_and_is_the_same(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gguf

    first = load_model(f"pip:{package}")
    assert [path.name.startswith("small-") for path in (tmp_path / "cache" / "models").iterdir()] == [True]

    def unread(*_: object) -> None:
        raise AssertionError("the GGUF file is read again")

    monkeypatch.setattr(gguf, "GGUFReader", unread)
    same(load_model(f"pip:{package}"), first)
    assert load_tokenizer(f"pip:{package}").get_vocab() == first.tokenizer.get_vocab()
    assert read_config(f"pip:{package}").hidden_size == WIDTH


def test_another_file_is_another_model(package: str, tmp_path: Path) -> None:
    first = load_model(f"pip:{package}")
    file = tmp_path / package / "small.gguf"
    content = bytearray(file.read_bytes())
    content[-64:] = np.full(16, 0.5, np.float32).tobytes()
    file.write_bytes(content)
    with pytest.raises(AssertionError):
        same(load_model(f"pip:{package}"), first)


def test_what_was_kept_and_is_damaged_is_made_anew(package: str, tmp_path: Path) -> None:
    first = load_model(f"pip:{package}")
    (folder,) = (tmp_path / "cache" / "models").iterdir()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    same(load_model(f"pip:{package}"), first)
    assert weights.stat().st_size > 100


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(converted.CACHE, str(tmp_path / "file"))
    same(load_model(f"pip:{package}"), load_model(f"pip:{package}"))
    assert converted.find(tmp_path / package / "small.gguf") is None


def test_a_tokenizer_that_would_come_back_as_another_is_not_kept(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converted, "_same", lambda one, other: False)
    load_model(f"pip:{package}")
    assert list((tmp_path / "cache" / "models").iterdir()) == []
