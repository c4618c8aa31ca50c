"""A transformer's small operations as one step of autograd each.

Between its matrix products a decoder layer normalises and gates. Written out, as Transformers does, every multiplication in it
is an operation of its own with a gradient of its own, which reads and writes all states again; on a CPU that is a sixth of an
update. Here a norm keeps its input and one number a token, and a gate its two inputs, and gradients are computed from those,
which takes less memory, too. The formulas are the modules' own, which is tried when a model is loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

WIDE = (torch.float32, torch.float64)


class _Norm(torch.autograd.Function):
    """y = x · r · w with r = (mean x² + ε)^(-1/2), the mean over the last dimension (Zhang & Sennrich 2019, eq. 4).

    With g the gradient of y and d the width: dw = Σ g·x·r over tokens; dx = r · (g·w − x · r² · (Σ g·w·x) / d).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        normed: Tensor = (x * scale).mul_(weight)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, scale = ctx.saved_tensors
        product = (grad * x).reshape(-1, x.shape[-1])
        of_weight = torch.mv(product.T, scale.reshape(-1)) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, of_weight, None
        along = torch.mv(product, weight).view(scale.shape).mul_(scale.pow(3)).div_(-x.shape[-1])
        return (grad * weight).mul_(scale).addcmul_(x, along), of_weight, None


class _Gate(torch.autograd.Function):
    """y = silu(a) · b, with silu(a) = a · σ(a) (Shazeer 2020, eq. 6)."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), F.silu(gate).mul_(grad)


class FusedRMSNorm(nn.Module):
    """What an RMS norm of Transformers becomes: its weights, its answer."""

    weight: nn.Parameter
    variance_epsilon: float

    def forward(self, states: Tensor) -> Tensor:
        """`[..., d]` → `[..., d]`."""
        wide = states.dtype in WIDE and states.dtype == self.weight.dtype
        if wide and not states.is_cuda:  # a GPU has a kernel with a gradient; with or without one, a CPU's rounding is the same
            out: Tensor = _Norm.apply(states, self.weight, self.variance_epsilon)  # type: ignore[no-untyped-call]
            return out
        normed = F.rms_norm(states if wide else states.float(), states.shape[-1:], eps=self.variance_epsilon)
        return self.weight * normed.to(states.dtype)


class FusedGatedMLP(nn.Module):
    """What a gated MLP of Transformers becomes: its linear layers, its answer."""

    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module

    def forward(self, states: Tensor) -> Tensor:
        """`[..., d]` → `[..., d]`."""
        out: Tensor = self.down_proj(_Gate.apply(self.gate_proj(states), self.up_proj(states)))  # type: ignore[no-untyped-call]
        return out


@torch.no_grad()
def fuse(model: nn.Module) -> None:
    """Have a model's norms and gated MLPs compute as above, in place, where they say the same.

    The modules stay where they are, with their weights, names and hooks: only their class is another. One of each class is
    tried on a few numbers; a norm that adds one to its weight, or an MLP with another activation, stays what it is. A model
    without content (`meta`) cannot be tried, and is judged by its parts.
    """
    same: dict[type[nn.Module], bool] = {}
    for module in model.modules():
        kind = type(module)
        fused = _fused(module)
        if fused is not None:
            if kind not in same:
                same[kind] = _agrees(module, fused)
            if same[kind]:
                module.__class__ = fused


def _fused(module: nn.Module) -> type[nn.Module] | None:
    """What a module could become, by its parts."""
    kind, parts = type(module).__name__, set(dict(module.named_children()))
    if isinstance(module, FusedRMSNorm | FusedGatedMLP):
        return None
    if kind.endswith("RMSNorm") and set(dict(module.named_parameters())) == {"weight"} and hasattr(module, "variance_epsilon"):
        return FusedRMSNorm
    if kind.endswith("MLP") and parts == {"gate_proj", "up_proj", "down_proj", "act_fn"}:
        return FusedGatedMLP
    return None


def _agrees(module: nn.Module, fused: type[nn.Module]) -> bool:
    """Whether a module's answer would stay what it is but for rounding."""
    first = next(module.parameters())
    if first.is_meta:
        return True
    states = torch.linspace(-2, 2, 3 * first.shape[-1], device=first.device, dtype=first.dtype).view(3, -1)
    kind, before = module.__class__, module(states)
    module.__class__ = fused
    with torch.enable_grad():
        after = module(states)
    module.__class__ = kind
    return torch.allclose(before, after, rtol=1e-3, atol=1e-4 * float(before.abs().max()))
