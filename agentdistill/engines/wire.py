"""What is said between this process and wherever a model is served: ids there, ids and log-probs back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from agentdistill.errors import UserError

SEEDS = 1 << 63
"""Seeds are taken modulo this: what a server's random number generator takes."""


class TextOnly(UserError):
    """A server that answers with text, so that what it says can be scored for others, and not played."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Attributes:
        ids: every token of the context.
        max_tokens: of the answer, at least 1.
        temperature, top_p, top_k, seed: how it is sampled; 0 is greedy, and `top_k` 0 keeps every token.
        stop_ids: end the answer; the one sampled is part of it.
        prompt_top: likeliest ids of each position of `ids` that are wanted, beside the token that stands there; None: neither.
        cached: whether what was computed of the beginning of `ids` before may be used.
    """

    ids: Sequence[int]
    max_tokens: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop_ids: frozenset[int] = frozenset()
    prompt_top: int | None = None
    cached: bool = True


@dataclass(frozen=True, slots=True)
class Said:
    """The answer.

    Attributes:
        ids, logprobs: of the answer, in nats at temperature 1, before anything is cut off.
        prompt: by position of the context, log-probs by id at temperature 1: those of the token there, and of the likeliest.
            Nothing stands before position 0, so that is empty.
    """

    ids: list[int]
    logprobs: list[float]
    prompt: list[Mapping[int, float]] = field(default_factory=list)


class Connection(Protocol):
    """A served model. `ask` may be called by several threads at once; what is asked meanwhile is computed together.

    Attributes:
        name: how errors call it.
        context: tokens of a context and its answer together, at most.
    """

    name: str
    context: int

    def ask(self, asks: Sequence[Ask]) -> list[Said]:
        """One answer a request, in order.

        Raises:
            UserError: when the other side refuses, dies, or answers something else.
        """
        ...

    def load(self, folder: Path) -> None:
        """Take the weights in a folder, and forget whatever was computed with the ones before.

        Raises:
            UserError: when it cannot.
        """
        ...

    def load_adapter(self, folder: Path) -> None:
        """Compute with the LoRA adapter in a folder from now on; as `load`."""
        ...

    def close(self) -> None:
        """Stop what was started for it."""
        ...
