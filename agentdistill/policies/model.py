"""A causal language model split into body and head, so that logits exist only where somebody asks for them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agentdistill.errors import UserError
from agentdistill.policies.fused import fuse
from agentdistill.policies.varlen import takes_rows


@dataclass(slots=True)
class CausalLM:
    """A Transformers model with its tokenizer.

    Attributes:
        model: in fp32 (master weights); `device` is where its parameters are.
        name: how logs and stored scores call it.
        context: longest sequence it takes, in tokens.
        packed: whether passes over several sequences lay them into one row, without padding (see `policies.varlen`); what it is
            made with is whether the model can.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    packed: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        windows = {kind for kind in getattr(self.model.config, "layer_types", None) or [] if kind != "full_attention"}
        if windows:
            raise UserError(
                f"model '{self.name}' has {', '.join(sorted(windows))} layers; only full attention keeps one cache "
                "across turns exactly. Choose a model without them."
            )
        fuse(self.model)
        self._check_head()
        self.packed = takes_rows(self.model, self.hidden, self.vocab_size)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device

    @property
    def context(self) -> int:
        """Longest sequence the model takes, in tokens."""
        return int(getattr(self.model.config, "max_position_embeddings", 1 << 30))

    @property
    def vocab_size(self) -> int:
        """Width of the output head (it may exceed the tokenizer's vocabulary)."""
        return int(self.head.weight.shape[0])

    @property
    def head(self) -> nn.Linear:
        """The output projection."""
        return self.model.get_output_embeddings()  # type: ignore[no-any-return, no-untyped-call]

    def hidden(self, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Last hidden states `[B, L, d]` for ids `[B, L]`; right padding needs no mask under causal attention."""
        with self.active():
            return self.model.base_model(input_ids=ids, **kwargs).last_hidden_state  # type: ignore[no-any-return]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[..., V]` fp32 logits (float64 of a float64 model), whatever the body's dtype is."""
        logits: torch.Tensor = self.head(hidden.to(self.head.weight.dtype))
        return logits if logits.dtype == torch.float64 else logits.float()

    def active(self) -> AbstractContextManager[None]:
        """A context in which `model` computes as this model; several may share their weights (see `policies.adapter`)."""
        return contextlib.nullcontext()

    def own(self) -> dict[str, torch.Tensor]:
        """What training changes and a checkpoint has to hold: parameters and buffers by name, a tied tensor once."""
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

    def named_weights(self) -> dict[str, torch.Tensor]:
        """Every parameter that its log-probs depend on, by name, a tied one once."""
        return dict(self.model.named_parameters())

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer into a folder that `load_model` reads.

        Raises:
            OSError, RuntimeError, SafetensorError: when the disk refuses.
        """
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @torch.no_grad()
    def _check_head(self) -> None:
        """Refuse models that do something to the logits after the head (soft caps, scaling) that we would miss."""
        self.model.train(False)
        ids = torch.arange(1, 5, device=self.device).unsqueeze(0) % self.vocab_size
        with self.active():
            whole = self.model(input_ids=ids).logits.float()
        gap = (whole - self.logits(self.hidden(ids))).abs().max().item()
        if not gap < 1e-3 * max(1.0, whole.abs().max().item()):
            raise UserError(f"model '{self.name}' transforms its logits after the output head; it is not supported yet")


# Of [positions × vocabulary] at one time. On a CPU 24 MB in fp32: the C library returns tensors above 32 MB, and over 64 MB
# that become free together, to the system, and every new one is paid for page by page, which costs more than most arithmetic on
# it. Much smaller pieces make slower products. A GPU's allocator keeps what it has, and wants larger pieces.
CHUNK_ELEMENTS = 3 << 21
CHUNK_ELEMENTS_GPU = 1 << 26


def chunk_rows(head: nn.Linear) -> int:
    """How many positions' logits may exist at one time behind this output head."""
    return max(1, (CHUNK_ELEMENTS if head.weight.device.type == "cpu" else CHUNK_ELEMENTS_GPU) // head.weight.shape[0])


def pad_right(sequences: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """`[B, longest]` ids, zeros to the right (under causal attention no real token sees them)."""
    width = max(len(s) for s in sequences)
    out = torch.zeros(len(sequences), width, dtype=torch.long)
    for row, ids in enumerate(sequences):
        out[row, : len(ids)] = torch.as_tensor(ids, dtype=torch.long)
    return out.to(device)


def require_same_vocabulary(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, name: str, role: str = "teacher"
) -> None:
    """Refuse a teacher (or another scorer, by its `role`) whose token ids mean something else than the student's.

    Raises:
        UserError: naming the first token that differs.
    """
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours == theirs:
        return
    differing = sorted(t for t in ours.keys() | theirs.keys() if ours.get(t) != theirs.get(t))
    token = differing[0]
    raise UserError(
        f"student and {role} '{name}' have different vocabularies ({len(ours)} and {len(theirs)} tokens; first "
        f"difference: {token!r} is id {ours.get(token)} for the student and {theirs.get(token)} for the {role}). "
        f"Token-level distillation needs one vocabulary: choose a {role} of the student's family."
    )
