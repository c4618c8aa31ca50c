"""One token a row through the body of a Llama-shaped model: the same arithmetic with fewer, larger operations.

When a handful of rows take one token each, a general forward pass spends as long on Python and on small operations as on
reading the weights. Here queries, keys and values are one product, gate and up are one, the rotary embedding is three
operations for both sides, and a norm is one. For SmolLM2-135M on two cores that is half a step's time. It is used only while
it says what the model's own pass says, which the first step of each sampler checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from agentdistill.policies.kv import RaggedCache
from agentdistill.policies.packed import SMALLEST, packable, packed_forward

FAMILIES = ("llama", "qwen2")
"""`config.model_type` of models whose modules have these names and nothing beside them."""


class DecodingBody:
    """A decoding pass over a model's own modules; it holds no weights but packed copies, where it was told to make them."""

    def __init__(self, model: PreTrainedModel) -> None:
        body: Any = model.base_model
        self._embed, self._norm, self._rotary = body.embed_tokens, body.norm, body.rotary_emb
        self._layers = [_Layer(layer) for layer in body.layers[: model.config.num_hidden_layers]]

    @classmethod
    def of(cls, model: PreTrainedModel) -> DecodingBody | None:
        """The pass for a model in fp32 on a CPU; None for any other, and for one that is not of a family's plain shape."""
        body: Any = model.base_model
        if model.config.model_type not in FAMILIES or not hasattr(body, "layers"):
            return None
        layers = [getattr(layer, part, None) for layer in body.layers for part in ("self_attn", "mlp")]
        linears = [child for part in layers if part is not None for child in part.children() if hasattr(child, "weight")]
        head_dim = body.layers[0].self_attn.head_dim
        plain = len(linears) == 7 * len(body.layers) and all(packable(each, smallest=0) for each in linears)
        return cls(model) if plain and 2 * body.rotary_emb.inv_freq.numel() == head_dim else None

    def __call__(self, ids: Tensor, positions: Tensor, mask: Tensor, cache: RaggedCache, packed: bool) -> Tensor:
        """`[n, 1, d]` last hidden states; keys and values go into the cache, which was told of the pass (`RaggedCache.begin`).

        Args:
            ids, positions: `[n, 1]`.
            mask: `[n, 1, 1, span]` bool, true where a token sees a key.
            packed: compute from copies of the weights in oneDNN's layout, which are made now if there are none.
        """
        states = self._embed(ids)
        cos, sin = self._rotary(states, position_ids=positions)
        half = cos.shape[-1] // 2
        bias = torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)  # or each layer would make it of the mask
        turn = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)  # the sign of the half that comes from behind
        for i, layer in enumerate(self._layers):
            states = layer(states, cos, turn, bias, cache, i, packed)
        return _normed(self._norm, states)

    def forget(self) -> None:
        """Drop the packed copies."""
        for layer in self._layers:
            layer.forget()


class _Layer:
    """One decoder layer."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._before, self._between = layer.input_layernorm, layer.post_attention_layernorm
        self._qkv = _Product([attention.q_proj, attention.k_proj, attention.v_proj])
        self._out, self._down = _Product([attention.o_proj]), _Product([mlp.down_proj])
        self._gate_up, self._act = _Product([mlp.gate_proj, mlp.up_proj]), mlp.act_fn
        self._width, self._scale = attention.head_dim, attention.scaling
        self._heads = attention.q_proj.out_features // self._width
        self._groups = attention.k_proj.out_features // self._width

    def __call__(
        self, states: Tensor, cos: Tensor, turn: Tensor, bias: Tensor, cache: RaggedCache, index: int, packed: bool
    ) -> Tensor:
        heads, groups, width, n = self._heads, self._groups, self._width, len(states)
        both = self._qkv(_normed(self._before, states), packed).view(n, heads + 2 * groups, width)
        turned = both[:, : heads + groups]
        turned = torch.addcmul(turned * cos, torch.roll(turned, width // 2, dims=-1), turn)
        keys, values = cache.update(turned[:, heads:, None], both[:, heads + groups :, None], index)
        query = turned[:, :heads].view(n, groups, heads // groups, width)  # a group's queries are as many positions of one head
        seen = F.scaled_dot_product_attention(query, keys, values, bias, scale=self._scale)
        states = states + self._out(seen.reshape(n, 1, heads * width), packed)
        gate, up = self._gate_up(_normed(self._between, states), packed).chunk(2, dim=-1)
        return states + self._down(self._act(gate) * up, packed)

    def forget(self) -> None:
        for product in (self._qkv, self._out, self._gate_up, self._down):
            product.forget()


class _Product:
    """Several linear layers with one input: their outputs side by side."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self._layers = layers
        self._pays = sum(layer.weight.numel() for layer in layers) >= SMALLEST
        self._packed: Any = None
        self._rows = 0

    def __call__(self, states: Tensor, packed: bool) -> Tensor:
        if packed and self._pays:
            n = len(states)
            if self._packed is None or not self._rows // 4 < n <= self._rows:
                self._packed, self._rows = packed_forward(self._layers, n), n
            out: Tensor = self._packed(states)
            return out
        parts = [F.linear(states, layer.weight, layer.bias) for layer in self._layers]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def forget(self) -> None:
        self._packed = None


def _normed(norm: Any, states: Tensor) -> Tensor:
    return F.rms_norm(states, states.shape[-1:], norm.weight, norm.variance_epsilon)
