"""Optimizer steps: AdamW over fp32 masters, warm-up and decay, gradient clipping that refuses what is not finite."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from agentdistill.errors import UserError

LrSchedule = Literal["constant", "linear", "cosine"]


def adamw(model: nn.Module, lr: float, betas: tuple[float, float], weight_decay: float) -> torch.optim.AdamW:
    """AdamW; norms and biases (vectors) are not decayed.

    Raises:
        UserError: when a trainable parameter is not fp32: at learning rates such as 1e-6 a bf16 master loses updates.
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    low = next((n for n, p in named if p.dtype != torch.float32), None)
    if low is not None:
        raise UserError(f"parameter '{low}' is not fp32; master weights must be, or small updates are lost")
    groups = [
        {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)  # one pass over the weights, not one an operation


def lr_factor(step: int, total: int, warmup: int, schedule: LrSchedule) -> float:
    """Share of the peak learning rate at `step` (from 0): linear warm-up, then constant, or decay to 0 at `total`."""
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return 1 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def apply_step(optimizer: torch.optim.Optimizer, lr: float, grad_clip: float, where: str) -> float:
    """Clip, step, clear the gradients; the gradient norm before clipping.

    Raises:
        UserError: when a gradient is not finite; the weights are then untouched.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    norm = float(nn.utils.clip_grad_norm_(params, grad_clip))
    if not math.isfinite(norm):
        raise UserError(
            f"the gradient at {where} is {norm}; the weights were not changed. Lower the learning rate, and look at the "
            "last rollouts; --resume goes on from the last checkpoint"
        )
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    # The fused step does not count as an in-place change, and that is how those who serve these weights elsewhere see one.
    torch.autograd.graph.increment_version(params)
    optimizer.zero_grad(set_to_none=True)
    return norm
