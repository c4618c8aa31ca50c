"""A model on its way to an actor: what it is once, without weights, and its weights as arrays whenever they change.

Arrays and not tensors: Ray keeps them once a node, in memory that its actors read from where it is.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agentdistill.cluster.shard import hollow, solid
from agentdistill.policies.model import CausalLM

Array = np.ndarray[Any, Any] | torch.Tensor
"""A tensor's numbers; numpy has no bfloat16, so tensors of that stay what they are."""
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
    bare = hollow(lm)
    for module in bare.model.modules():
        for table in (module._buffers, module.__dict__):  # small ones, which may be on a GPU that the actor has not
            table.update({name: value.cpu() for name, value in table.items() if isinstance(value, torch.Tensor)})
    return Parcel(pickle.dumps(bare), _parameters(lm, moving=False))


def moving(lm: CausalLM) -> dict[str, Array]:
    """The weights that training changes, by the model's own names for them (`CausalLM.own` has others for an adapter's)."""
    return _parameters(lm, moving=True)


def unpack(parcel: Parcel, weights: Weights) -> CausalLM:
    """The model, on a GPU where there is one."""
    lm = solid(pickle.loads(parcel.skeleton))
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


def array(tensor: torch.Tensor) -> Array:
    """A tensor's numbers, in the same memory where it is on the CPU."""
    here = tensor.detach().cpu()
    return here if here.dtype == torch.bfloat16 else here.numpy()


def tensor(numbers: Array) -> torch.Tensor:
    """An array as a tensor in the same memory, which is not to be written to."""
    if isinstance(numbers, torch.Tensor):
        return numbers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that it must not be written to
        return torch.from_numpy(numbers)


def _parameters(lm: CausalLM, *, moving: bool) -> dict[str, Array]:
    own = {id(tensor) for tensor in lm.own().values()}
    return {name: array(p) for name, p in lm.model.named_parameters() if (id(p) in own) == moving}
