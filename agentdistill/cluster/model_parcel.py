"""A model on its way to another process: what it is once, without weights, and its weights as arrays whenever they change.

Arrays and not tensors: Ray keeps them once a node, in memory that its actors read from where it is.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from agentdistill.policies.model import CausalLM

Array = np.ndarray[Any, Any] | torch.Tensor
"""A tensor's numbers; numpy has no bfloat16, so tensors of that stay what they are."""
Weights = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a process needs to make a model.

    Attributes:
        skeleton: the pickled `CausalLM`, every tensor without its numbers, and without its tokenizer.
        fixed: weights that do not change while it is used: those below an adapter.
    """

    skeleton: bytes
    fixed: Weights


def pack(lm: CausalLM) -> Parcel:
    """All of a model but what `moving` gives."""
    tensors = _tensors(lm.model)
    memo: dict[int, Any] = {id(tensor): _empty(tensor) for tensor in tensors.values()}
    bare = copy.copy(lm)
    bare.tokenizer = None  # type: ignore[assignment]  # texts are the driver's; here are ids
    bare.model = copy.deepcopy(lm.model, memo)
    own = {id(tensor) for tensor in lm.own().values()}
    return Parcel(pickle.dumps(bare), arrays({name: t for name, t in tensors.items() if id(t) not in own}))


def moving(lm: CausalLM) -> dict[str, Array]:
    """The weights that training changes, by the model's own names for them (`CausalLM.own` has others for an adapter's)."""
    own = {id(tensor) for tensor in lm.own().values()}
    return arrays({name: tensor for name, tensor in _tensors(lm.model).items() if id(tensor) in own})


def unpack(parcel: Parcel, weights: Weights) -> CausalLM:
    """The model, on a GPU where there is one.

    Raises:
        KeyError: when a tensor has no numbers in either.
    """
    lm: CausalLM = pickle.loads(parcel.skeleton)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    given = {**parcel.fixed, **weights}
    filled: dict[int, torch.Tensor] = {}
    for name, empty in _tensors(lm.model).items():
        filling = tensor(given[name]).to(device, copy=True)
        filled[id(empty)] = nn.Parameter(filling, requires_grad=False) if isinstance(empty, nn.Parameter) else filling
    for module in lm.model.modules():
        for table in (module._parameters, module._buffers, module.__dict__):
            table.update({name: filled[id(value)] for name, value in table.items() if id(value) in filled})
    return lm


@torch.no_grad()
def bring(lm: CausalLM, weights: Weights) -> None:
    """Give an unpacked model new weights, in place."""
    tensors = _tensors(lm.model)
    for name, array in weights.items():
        tensors[name].copy_(tensor(array))


def arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, Array]:
    """Tensors as arrays, which share their memory where they are on the CPU."""
    return {name: array(tensor) for name, tensor in tensors.items()}


def array(tensor: torch.Tensor) -> Array:
    """See `arrays`."""
    here = tensor.detach().cpu()
    return here if here.dtype == torch.bfloat16 else here.numpy()


def _tensor(array: Array) -> torch.Tensor:
    if isinstance(array, torch.Tensor):
        return array
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that it cannot be written to: nobody does
        return torch.from_numpy(array)


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, a tied one once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _empty(tensor: torch.Tensor) -> torch.Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
