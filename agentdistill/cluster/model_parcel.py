"""A model on its way to an actor: what it is once, without weights, and its weights as arrays whenever they change.

Arrays and not tensors: Ray keeps them once a node, in memory that its actors read from where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from agentdistill.cluster.arrays import Array, array, tensor
from agentdistill.cluster.parcel import pickled, unpickled
from agentdistill.cluster.shard import hollow, solid
from agentdistill.policies.model import CausalLM

Weights = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a process needs to make a model.

    Attributes:
        skeleton: the pickled model without its weights and its tokenizer; texts are the driver's, and actors know ids.
        fixed: weights that do not change while it is used: those below an adapter.
    """

    skeleton: bytes
    fixed: Weights


def pack(lm: CausalLM) -> Parcel:
    """All of a model but what `moving` gives."""
    return Parcel(pickled(hollow(lm)), _parameters(lm, moving=False))


def moving(lm: CausalLM) -> dict[str, Array]:
    """The weights that training changes, by the model's own names for them (`CausalLM.own` has others for an adapter's)."""
    return _parameters(lm, moving=True)


def unpack(parcel: Parcel, weights: Weights) -> CausalLM:
    """The model, on a GPU where there is one."""
    lm = solid(unpickled(parcel.skeleton))
    bring(lm, {**parcel.fixed, **weights})
    model: Any = lm.model.requires_grad_(False)
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return lm


@torch.no_grad()
def bring(lm: CausalLM, weights: Weights) -> None:
    """Give an unpacked model new weights, in place."""
    parameters = dict(lm.model.named_parameters())
    for name, numbers in weights.items():
        parameters[name].copy_(tensor(numbers))


def _parameters(lm: CausalLM, *, moving: bool) -> dict[str, Array]:
    own = {id(tensor) for tensor in lm.own().values()}
    return {name: array(p) for name, p in lm.model.named_parameters() if (id(p) in own) == moving}
