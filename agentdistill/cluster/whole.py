"""A checkpoint of one process, read by several: each takes its shard of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.distributed.tensor import DTensor, distribute_tensor

from agentdistill.cluster.shard import put
from agentdistill.errors import UserError
from agentdistill.policies.model import CausalLM
from agentdistill.training.state import OPTIMIZER, WEIGHTS, readable, require_own


def load_whole(folder: Path, lm: CausalLM, optimizer: torch.optim.Optimizer) -> None:
    """Read what `state.save_state` wrote into a sharded model and its optimizer, in place.

    Raises:
        UserError: when a file is missing, damaged or of another model.
    """
    with readable(folder):
        with safe_open(folder / WEIGHTS, framework="pt") as file, torch.no_grad():
            own = lm.own()
            require_own(own, {name: file.get_slice(name).get_shape() for name in file.keys()}, f"checkpoint '{folder}'")  # noqa: SIM118
            for name, tensor in own.items():
                whole = file.get_tensor(name).to(tensor.device)
                if isinstance(tensor, DTensor):
                    put(tensor, whole)
                else:
                    tensor.copy_(whole)
        state = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True, mmap=True)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if any(index >= len(parameters) for index in state["state"]):
            raise UserError(f"checkpoint '{folder}' is of another model: its optimizer knows more weights")
        for index, values in state["state"].items():
            state["state"][index] = {name: _sharded(value, parameters[index]) for name, value in values.items()}
        optimizer.load_state_dict(state)


def _sharded(value: Any, parameter: torch.Tensor) -> Any:
    """An optimizer's value for a parameter, laid out as that is."""
    if not isinstance(value, torch.Tensor):
        return value
    if value.shape == parameter.shape and isinstance(parameter, DTensor):
        value = distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value.clone()  # the file is only mapped, and will be gone
