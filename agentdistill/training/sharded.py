"""A checkpoint that several processes write together, by `torch.distributed.checkpoint`, and any number of them reads."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from agentdistill.errors import UserError
from agentdistill.policies.model import CausalLM

FOLDER = "sharded"
"""Within the checkpoint's folder."""


def is_sharded(folder: Path) -> bool:
    """Whether a checkpoint is one of these."""
    return (folder / FOLDER).is_dir()


def save_sharded(folder: Path, lm: CausalLM, optimizer: torch.optim.Optimizer) -> None:
    """Write a sharded model's own weights (see `CausalLM.own`) and its optimizer's state. Every rank has to call it.

    Raises:
        OSError: when the disk refuses a rank; every rank raises it then.
    """
    with _told():
        save(_state(lm, optimizer), checkpoint_id=folder / FOLDER)


def load_sharded(folder: Path, lm: CausalLM, optimizer: torch.optim.Optimizer) -> None:
    """Read back what `save_sharded` wrote, in place: each rank its shard, or one process all of it.

    Raises:
        UserError: when it is missing, damaged or of another model.
    """
    state = _state(lm, optimizer)
    try:
        with _told(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that one process reads it, where one does
            load(state, checkpoint_id=folder / FOLDER, no_dist=not distributed.is_initialized())
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"checkpoint '{folder}' cannot be read: {error}; start over with another --out") from error
    set_optimizer_state_dict(lm.model, optimizer, state["optimizer"])


def _state(lm: CausalLM, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    weights = {name: tensor.detach() for name, tensor in lm.own().items()}
    return {"weights": weights, "optimizer": get_optimizer_state_dict(lm.model, optimizer)}


@contextmanager
def _told() -> Iterator[None]:
    """What DCP raises, no `Exception`, as one that says what each rank met with."""
    try:
        yield
    except CheckpointException as error:
        if any(isinstance(failed[0], KeyboardInterrupt) for failed in error.failures.values()):
            raise KeyboardInterrupt from error
        met = {rank: f"{type(failed[0]).__name__}: {failed[0]}" for rank, failed in error.failures.items()}
        said = "; ".join(f"rank {rank}: {' '.join(what.split())[:160]}" for rank, what in sorted(met.items()))
        raise OSError(said) from error
