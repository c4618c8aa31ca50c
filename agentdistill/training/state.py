"""Weights and optimizer state on disk."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers.utils import logging as hf_logging

from agentdistill.errors import UserError
from agentdistill.policies.model import CausalLM, chunk_rows

WEIGHTS, OPTIMIZER = "weights.safetensors", "optimizer.pt"
_BEGINNING = 32  # ids


def save_state(folder: Path, lm: CausalLM, optimizer: torch.optim.Optimizer) -> None:
    """Write weights (`weights.safetensors`) and optimizer state (`optimizer.pt`) into an existing folder.

    Of a student with an adapter that is the adapter alone.
    """
    save_weights(folder / WEIGHTS, lm)
    torch.save(optimizer.state_dict(), folder / OPTIMIZER)


def load_state(folder: Path, lm: CausalLM, optimizer: torch.optim.Optimizer) -> None:
    """Read back what `save_state` wrote.

    Raises:
        UserError: when a file is missing, damaged or of another model.
    """
    load_weights(folder / WEIGHTS, lm)
    with readable(folder):
        optimizer.load_state_dict(torch.load(folder / OPTIMIZER, map_location=lm.device, weights_only=True))


def save_weights(path: Path, lm: CausalLM) -> None:
    """Write what is a model's own (see `CausalLM.own`)."""
    save_file({name: t.detach().contiguous() for name, t in lm.own().items()}, path)


def load_weights(path: Path, lm: CausalLM) -> None:
    """Read back what `save_weights` wrote, in place.

    Raises:
        UserError: when the file is missing, damaged or of another model.
    """
    with readable(path.parent):
        weights = load_file(path, device=str(lm.device))
        copy_into(lm, weights, f"checkpoint '{path.parent}'")


@torch.no_grad()
def copy_into(lm: CausalLM, weights: Mapping[str, torch.Tensor], what: str) -> None:
    """Give a model what another one's `CausalLM.own` holds, in place.

    Raises:
        UserError: naming `what` it is, when it is of another model.
    """
    own = lm.own()
    require_own(own, {name: tensor.shape for name, tensor in weights.items()}, what)
    for name, tensor in own.items():
        tensor.copy_(weights[name])


def require_own(own: Mapping[str, torch.Tensor], shapes: Mapping[str, Sequence[int]], what: str) -> None:
    """Refuse weights that are not those of `CausalLM.own`.

    Args:
        shapes: theirs, by name.

    Raises:
        UserError: naming `what` they are.
    """
    if differing := sorted(own.keys() ^ shapes.keys()):
        raise UserError(f"{what} is of another model: it differs in '{differing[0]}'")
    for name, tensor in own.items():
        if tensor.shape != tuple(shapes[name]):
            raise UserError(f"{what} is of another model: '{name}' has another shape")


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """What reading a missing, damaged or foreign file raises, as one sentence."""
    try:
        yield
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"checkpoint '{folder}' cannot be read: {reason}; start over with another --out") from error


@torch.no_grad()
def require_finite(lm: CausalLM, ids: Sequence[int], where: str, rate: str) -> None:
    """Refuse a model that its last update broke, before it is saved or measured.

    Losses and gradients are looked at before an update, so only the last one's effect would go unseen. Finite weights may
    still overflow inside the model: the beginning of one sequence is run to know.

    Args:
        ids: a sequence it was trained on.
        where: names the update in the error.
        rate: names the setting of its learning rate.

    Raises:
        UserError: when a weight, or a logit of the sequence, is NaN or infinite.
    """
    weights = list(lm.model.named_parameters())
    broken = None
    if not bool(torch.stack([p.sum() for _, p in weights]).isfinite().all()):  # seven times faster than looking at each number
        broken = next((name for name, p in weights if not bool(torch.isfinite(p).all())), None)
    if broken is None:
        lm.model.train(False)
        hidden = lm.hidden(torch.tensor([list(ids[:_BEGINNING])], device=lm.device))[0]
        if all(bool(torch.isfinite(lm.logits(part)).all()) for part in torch.split(hidden, chunk_rows(lm.head))):
            return
    what = f"weights that are not finite (the first in '{broken}')" if broken else "a model whose logits are not finite"
    raise UserError(f"{where} left {what}; nothing of it was saved. Lower {rate}, and start again with another --out")


@contextmanager
def writing(what: str) -> Iterator[None]:
    """What a disk that is full, or refuses, makes of writing a model, as one sentence.

    Python says it by an OSError, torch by a RuntimeError, safetensors by its own, and tokenizers by a bare Exception.

    Raises:
        UserError: naming `what` was written.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError | RuntimeError | SafetensorError) and type(error) is not Exception:
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{what} could not be written: {reason}; free some space, then go on with --resume") from error


def save_model(folder: Path, lm: CausalLM) -> None:
    """Write a model and its tokenizer as a folder for `load_model`, whole or not at all.

    Raises:
        UserError: when the disk refuses.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        with writing(f"model folder '{folder}'"):
            for stale in (partial, folder):
                shutil.rmtree(stale, ignore_errors=True)
            hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # its bars garble a log file
            lm.save(partial)
            partial.rename(folder)
    except UserError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
