"""What a model's sizes come to, counted on Transformers' own modules without memory for their weights (the `meta` device)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedModel

from agentdistill.errors import UserError
from agentdistill.policies.adapter import base_of, is_adapter
from agentdistill.policies.fused import fuse
from agentdistill.policies.load import is_tiny, read_config
from agentdistill.policies.tiny import tiny_config, tiny_shape
from agentdistill.training.recompute import decoder_layers

_SIZE = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)([bm])(?![a-z])", re.IGNORECASE)  # in names such as Qwen3-1.7B
_GUESSED_VOCABULARY = 151_936  # of Qwen2.5 and Qwen3, the widest in common use
_PROBED = (8, 16)  # lengths, in tokens, that what is saved for the backward pass is counted at


@dataclass(frozen=True)
class Shape:
    """A causal language model without its weights.

    Attributes:
        ref: how the experiment names it.
        config: its sizes, as Transformers has them.
        guessed: whether they were made up from the number of parameters in its name.
    """

    ref: str
    config: PretrainedConfig
    guessed: bool = False

    @cached_property
    def model(self) -> PreTrainedModel:
        """On the `meta` device, in fp32."""
        with torch.device("meta"):
            return _made(self.config)

    @property
    def parameters(self) -> int:
        """How many, a tied one once."""
        return sum(each.numel() for each in self.model.parameters())

    @property
    def layers(self) -> int:
        """How many."""
        return int(self.config.num_hidden_layers)

    @property
    def width(self) -> int:
        """Of a hidden state."""
        return int(self.config.hidden_size)

    @property
    def vocabulary(self) -> int:
        """Width of the output head."""
        return int(self.config.vocab_size)

    @property
    def body(self) -> int:
        """Parameters that every token goes through before the head: all but the embeddings, tied or not."""
        table = self.vocabulary * self.width
        return self.parameters - table * (1 if self.config.tie_word_embeddings else 2)

    @property
    def cached_numbers(self) -> int:
        """Numbers that a key-value cache keeps of a token."""
        heads = int(self.config.num_attention_heads)
        own = int(getattr(self.config, "num_key_value_heads", None) or heads)
        return 2 * self.layers * own * int(getattr(self.config, "head_dim", None) or self.width // heads)

    def shard(self, ranks: int) -> int:
        """Numbers of the first, largest shard of it: every tensor is cut along its first dimension, as FSDP2 does."""
        return sum(math.ceil(each.shape[0] / ranks) * (each.numel() // each.shape[0]) for each in self.model.parameters())

    @cached_property
    def layer(self) -> int:
        """Parameters of its largest layer."""
        return max(sum(each.numel() for each in layer.parameters()) for layer in decoder_layers(self.model))

    @property
    def root(self) -> int:
        """Parameters outside of its layers: embeddings, the head where it is not tied to them, and the last norm."""
        inside = sum(each.numel() for layer in decoder_layers(self.model) for each in layer.parameters())
        return self.parameters - inside

    @property
    def saved_recomputing(self) -> float:
        """As `saved_numbers`, where layers are computed again: each layer's input, and all of one layer."""
        return self.layers * self.width + self.saved_numbers / self.layers

    def forward_flops(self, length: int) -> float:
        """Floating-point operations a token of a sequence that long, attention among them, the output head not."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self._body(length)
        return float(counter.get_total_flops()) / length

    @cached_property
    def saved_numbers(self) -> float:
        """Numbers that the body keeps of a token for its backward pass.

        Counted at two short lengths and extended to none, where attention's matrix vanishes: the fused kernels keep none.
        """
        short, longer = _PROBED
        a, b = self._saved(short) / short, self._saved(longer) / longer
        return (longer * a - short * b) / (longer - short)

    def _saved(self, length: int) -> int:
        own = {each.untyped_storage()._cdata for each in self.model.parameters()}
        kept: dict[int, torch.Tensor] = {}  # held on to, so that no storage takes the place of another

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            place = tensor.untyped_storage()._cdata
            if place not in own:
                kept[place] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            hidden = self._body(length)
        del hidden
        return sum(each.untyped_storage().nbytes() for each in kept.values()) // 4

    def _body(self, length: int) -> torch.Tensor:
        ids = torch.zeros(1, length, dtype=torch.long, device="meta")
        hidden: torch.Tensor = self.model.base_model(input_ids=ids).last_hidden_state
        return hidden

    def cut(self, layers: int) -> PreTrainedModel:
        """A real model on the CPU with so many of its layers, fp32, at random weights."""
        config = type(self.config).from_dict({**self.config.to_dict(), "num_hidden_layers": layers})
        if getattr(config, "layer_types", None):
            config.layer_types = list(self.config.layer_types)[:layers]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return _made(config)


def _made(config: PretrainedConfig) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    fuse(model)  # as a loaded one
    return model


def shape_of(ref: str, vocabulary: int = 512, context: int = 2048) -> Shape:
    """The shape of a model reference.

    A hub id that is not on this machine and whose configuration cannot be fetched is guessed from the number of parameters in
    its name, such as `1.7B`.

    Args:
        vocabulary, context: of `tiny:` models, which have those of the run.

    Raises:
        UserError: when the reference names nothing, and its name tells no size.
    """
    if is_tiny(ref):
        tiny_shape(ref.removeprefix("tiny:"))
        return Shape(ref, tiny_config(ref.removeprefix("tiny:"), vocabulary, context))
    if is_adapter(ref):
        return Shape(ref, shape_of(base_of(ref)).config)
    try:
        return Shape(ref, read_config(ref))
    except UserError as error:
        if (found := _SIZE.search(ref.rpartition("/")[2])) is None or ref.startswith((".", "/", "~", "runs/", "pip:")):
            raise UserError(f"{error}; its size is not known, and its name does not tell it") from error
        return Shape(ref, _guessed(float(found[1]) * (1e9 if found[2] in "bB" else 1e6)), guessed=True)


def _guessed(parameters: float) -> LlamaConfig:
    """A model of about so many parameters in the usual proportions: heads of 128, four to a key and value, a feed-forward layer
    three times as wide as the hidden states, and those about 80 times as wide as there are layers."""
    best: tuple[float, LlamaConfig] | None = None
    for width in range(512, 12_289, 512):
        block = 2 * width**2 * (1 + 1 / 4) + 9 * width**2
        table = _GUESSED_VOCABULARY * width * (1 if parameters < 3e9 else 2)
        layers = round((parameters - table) / block)
        if layers < 4:
            break
        config = LlamaConfig(
            vocab_size=_GUESSED_VOCABULARY, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
            num_attention_heads=width // 128, num_key_value_heads=width // 512, head_dim=128,
            tie_word_embeddings=parameters < 3e9,
        )  # fmt: skip
        off = abs(width / layers - 80)
        if best is None or off < best[0]:
            best = off, config
    if best is None:
        raise UserError(f"a model of {parameters:.3g} parameters is too small to be guessed; name its folder")
    return best[1]
