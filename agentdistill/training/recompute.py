"""Activation checkpointing (arXiv 1604.06174): a layer's inside is computed again in the backward pass, and not kept.

Transformers has a switch of its own, which acts in training mode only, and models are never put into that here.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from agentdistill.policies.varlen import varlen


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """A Transformers model's layers, in order."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


@contextlib.contextmanager
def recomputing(model: PreTrainedModel, wanted: bool = True) -> Iterator[None]:
    """A context in which passes with gradients keep each layer's input only; the gradients are the same.

    Args:
        wanted: whether to; nothing is changed otherwise.
    """
    if not wanted:
        yield
        return
    layers, config = decoder_layers(model), model.config
    cached = config.use_cache
    config.use_cache = False  # to a cache a layer that is computed again would add its keys again
    for layer in layers:
        # Nothing is drawn at random in these models, so there is no generator's state to bring back.
        again = functools.partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
        layer.forward = again
    try:
        with varlen(model):  # also on the way back, when a row's layers are computed again
            yield
    finally:
        config.use_cache = cached
        for layer in layers:
            del layer.forward
