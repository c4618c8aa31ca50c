"""New weights on their way: what a model in this process has is written as files that a served one takes."""

from __future__ import annotations

import copy
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from agentdistill.engines.wire import Ask, Connection
from agentdistill.errors import UserError
from agentdistill.policies.adapter import Adapted
from agentdistill.policies.model import CausalLM

HEAD = "lm_head.weight"
Reshape = Callable[[dict[str, Any], dict[str, torch.Tensor]], None]
"""Changes a config and its weights, in place, to an equal model that the other side takes."""


def write_model(lm: CausalLM, folder: Path, dtype: torch.dtype, reshape: Reshape | None = None) -> None:
    """Write a model's weights and config, an adapter's not with them, for an engine to load.

    The output head is written even where it is tied to the embeddings: vLLM 0.32, told to load weights anew, leaves a head
    that is missing from the file as it was.

    Raises:
        UserError: when the disk refuses.
    """
    plain = lm.without(lm.name) if isinstance(lm, Adapted) else lm
    tensors = {name: tensor.detach() for name, tensor in plain.named_weights().items()}
    tensors[HEAD] = lm.head.weight.detach()
    config = copy.deepcopy(lm.model.config).to_diff_dict()
    config |= {"tie_word_embeddings": False, "architectures": [type(lm.model).__name__], "dtype": str(dtype).partition(".")[2]}
    if reshape is not None:
        reshape(config, tensors)
    seen: set[int] = set()
    for name, tensor in tensors.items():
        given = tensor.to("cpu", dtype)
        shared = given.data_ptr() in seen  # safetensors takes a storage once
        seen.add(given.data_ptr())
        tensors[name] = given.clone() if shared else given.contiguous()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"new weights could not be written to '{folder}': {reason}; name another folder by engine.exchange"
        ) from error


def state_of(tensors: dict[str, torch.Tensor]) -> tuple[tuple[int, int], ...]:
    """What changes when a tensor is written to: where each one is, and how often that was done.

    Torch counts every in-place change (that is how autograd notices one), the optimizer's, a checkpoint's and an average's
    alike. So nobody who changes weights has to think of telling.
    """
    return tuple((tensor.data_ptr(), tensor._version) for _, tensor in sorted(tensors.items()))


class WeightSync:
    """Brings a served model up to date with the one in this process, where that has changed since.

    Args:
        lm: the model in this process.
        dtype: of the served weights.
        exchange: folder that both sides see; a temporary one of this machine where it is empty.
        reshape: see `write_model`.
        private: whether the other side is of this user, so that nobody else has to read the files.

    Attributes:
        pushed: how often weights were sent.
        folder: where files are written, there until `close`.
    """

    def __init__(
        self, lm: CausalLM, dtype: torch.dtype, exchange: str = "", reshape: Reshape | None = None, *, private: bool = False
    ) -> None:
        self.lm, self.pushed = lm, 0
        self._dtype, self._reshape = dtype, reshape
        self._connection: Connection | None = None
        self._written = 0
        self._base: object = None
        self._adapter: object = None
        self._adapted: Path | None = None
        try:
            self.folder = _folder_in(exchange, private)
        except OSError as error:
            raise UserError(f"engine.exchange '{exchange}' is no folder that can be written to: {error.strerror}") from error

    def to(self, connection: Connection) -> None:
        """Send whatever changes from now on there."""
        self._connection = connection

    @contextmanager
    def written(self) -> Iterator[Path]:
        """The weights as they stand, an adapter's not with them, in a folder that is there until the block ends."""
        state = state_of(self._plain())
        with self._new_folder() as folder:
            write_model(self.lm, folder, self._dtype, self._reshape)
            yield folder
        self._base = state

    def __call__(self) -> None:
        """Send what has changed.

        Raises:
            UserError: when it cannot be written, or the other side does not take it.
        """
        assert self._connection is not None
        if state_of(self._plain()) != self._base:
            with self.written() as folder:
                self._connection.load(folder)
            self._adapter = None  # vLLM drops its adapters with the weights that they were made for
            self.pushed += 1
        if isinstance(self.lm, Adapted) and (adapter := state_of(self.lm.own())) != self._adapter:
            folder, before = self._next(), self._adapted
            self._adapted = folder  # there until the next: vLLM reads it again where it had no room to keep the adapter
            self.lm.save_adapter(folder)
            self._connection.load_adapter(folder)
            if before is not None:
                shutil.rmtree(before, ignore_errors=True)
            self._adapter = adapter
            self.pushed += 1

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _plain(self) -> dict[str, torch.Tensor]:
        lm = self.lm.without("") if isinstance(self.lm, Adapted) else self.lm
        return lm.named_weights()

    def _next(self) -> Path:
        self._written += 1
        return self.folder / f"{self._written:06d}"

    @contextmanager
    def _new_folder(self) -> Iterator[Path]:
        folder = self._next()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _folder_in(exchange: str, private: bool) -> Path:
    """A new folder, by its whole path, since the other side may run in another one."""
    if not exchange:
        return Path(tempfile.mkdtemp(prefix="agentdistill-"))
    there = Path(exchange).expanduser().resolve()
    there.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="agentdistill-", dir=there))
    if not private:
        folder.chmod(0o755)
    return folder


_PROBE, _FAR = 32, 0.2
"""Tokens that are compared once weights were sent for the first time; nats that half of them may differ by in bf16."""


@torch.no_grad()
def require_same_model(lm: CausalLM, connection: Connection) -> None:
    """Refuse a served model that does not say what the one in this process says, to which it was just brought up to date.

    Raises:
        UserError: when half of some log-probs differ.
    """
    lm.model.train(False)
    width = min(len(lm.tokenizer), lm.vocab_size)
    ids = [(7 + 31 * i) % width for i in range(min(_PROBE, lm.context - 1, connection.context - 1))]
    logprobs = torch.log_softmax(lm.logits(lm.hidden(torch.tensor([ids], device=lm.device))[0]), -1).cpu()
    ours = [float(logprobs[t - 1, ids[t]]) for t in range(1, len(ids))]
    rows = connection.ask([Ask(ids, prompt_top=0, cached=False)])[0].prompt
    theirs = [rows[t].get(ids[t], math.nan) for t in range(1, len(ids))] if len(rows) == len(ids) else [math.nan]
    gaps = sorted(abs(a - b) for a, b in zip(ours, theirs, strict=False))
    if not gaps[len(gaps) // 2] <= _FAR:
        raise UserError(
            f"{connection.name} was sent the weights of model '{lm.name}', and its log-probs are "
            f"{gaps[len(gaps) // 2]:.2g} nats from those in this process; start it with a model of the same architecture"
        )
