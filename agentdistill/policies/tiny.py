"""Tiny Llama models from scratch, with a tokenizer trained on an environment's own transcripts.

They stand in for real models where there is no GPU: the same architecture, code path and formats, a thousandth of the size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from agentdistill.chat import TAG_TEMPLATE
from agentdistill.errors import UserError

SIZES = {"xs": (64, 2), "s": (96, 3), "m": (128, 4), "l": (192, 5)}
HEAD_DIM = 16  # more, smaller heads: copying from the context is learnt sooner
_SHAPE = re.compile(r"(\d+)x(\d+)")


def tiny_shape(size: str) -> tuple[int, int]:
    """Width and depth named by `xs`, `s`, `m`, `l` or `<width>x<depth>`.

    Raises:
        UserError: for anything else.
    """
    if size in SIZES:
        return SIZES[size]
    match = _SHAPE.fullmatch(size)
    if match is None or int(match[1]) % 32 or not int(match[1]) or not int(match[2]):
        raise UserError(
            f"model 'tiny:{size}' is unknown; write tiny:{{{'|'.join(SIZES)}}} or tiny:WIDTHxDEPTH, WIDTH in steps of 32"
        )
    return int(match[1]), int(match[2])


def tiny_config(size: str, vocab_size: int, context: int = 2048) -> LlamaConfig:
    """Sizes of a Llama: head dimension `HEAD_DIM`, MLP 8/3 of the width, tied embeddings."""
    width, depth = tiny_shape(size)
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=-(-8 * width // 96) * 32,
        num_hidden_layers=depth,
        num_attention_heads=width // HEAD_DIM,
        num_key_value_heads=width // HEAD_DIM,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )


def tiny_model(size: str, vocab_size: int, seed: int, context: int = 2048) -> LlamaForCausalLM:
    """A randomly initialised Llama of these sizes, fp32."""
    config = tiny_config(size, vocab_size, context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)  # type: ignore[no-untyped-call]


def train_tokenizer(texts: Iterable[str], vocab_size: int = 512) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on `texts`; any string round-trips. Ids 0 to 4 are pad, end and the three role tags.

    Every digit is a token of its own, so that copying a number is copying its digits, whatever stands before it.
    """
    specials = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    raw = Tokenizer(models.BPE())
    digits, text = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.pre_tokenizer = pre_tokenizers.Sequence([digits, text])
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=raw,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        extra_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TAG_TEMPLATE
    return tokenizer
