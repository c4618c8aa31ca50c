"""The two roles a model plays: `Sampler` (ids in, ids and log-probs out) and `TeacherScorer` (ids in, log-probs out)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agentdistill.trajectory import Finish

COOLEST = 1e-4  # below it, logits divided by the temperature would leave fp32's range


def _drawable(temperature: float) -> float:
    if 0 < temperature < COOLEST:
        raise ValueError(f"must be 0, which is greedy, or at least {COOLEST:g}, not {temperature:g}")
    return temperature


Temperature = Annotated[float, Field(ge=0, description="0 is greedy"), AfterValidator(_drawable)]


class SamplingParams(BaseModel):
    """How to sample one message.

    `temperature` 0 is greedy. `top_p` and `top_k` cut the tail after the temperature. `max_tokens` counts the stop token.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    temperature: Temperature = 1.0
    top_p: float = Field(1.0, gt=0, le=1, description="sample from the likeliest tokens of this mass")
    top_k: int = Field(0, ge=0, description="0 keeps every token")
    max_tokens: int = Field(64, ge=1, description="tokens of one message, the stop token included")


@dataclass(frozen=True, slots=True)
class Request:
    """One message to sample.

    Attributes:
        key: names the episode; a sampler may keep state (a key-value cache) under it until `release`.
        context: every token id of the context.
        seed: the sample depends on this and the context only, not on what else is in the batch.
        stop_ids: ids that end the message; the one sampled is part of it.
        max_tokens: an upper bound for this request beside the sampling parameters' own.
    """

    key: int
    context: Sequence[int]
    seed: int
    stop_ids: frozenset[int]
    max_tokens: int | None = None


@dataclass(slots=True)
class Sample:
    """A sampled message: ids, and nats per id at the sampling temperature (before top-k and top-p) and at 1.

    Under greedy decoding both columns are at temperature 1.
    """

    ids: list[int]
    logprobs: list[float]
    logprobs_t1: list[float]
    finish: Finish


class Sampler(Protocol):
    """Samples messages for many episodes at once."""

    name: str
    version: int

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[Sample]:
        """One sample a request, in order."""
        ...

    def release(self, keys: Iterable[int] | None = None) -> None:
        """Forget these episodes (all of them by default)."""
        ...


@runtime_checkable
class ContinuousSampler(Sampler, Protocol):
    """A sampler that takes requests up while others are being sampled, and gives each sample as soon as it is there."""

    def begin(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """Take requests up; each key at most once at a time, and the same parameters as what is still being sampled."""
        ...

    def advance(self) -> list[tuple[Request, Sample]]:
        """Sample a token for everybody who was taken up; the messages that are finished by it."""
        ...


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """One sequence to score: `targets` are the positions `t` whose `ids[t]` are scored given `ids[:t]`."""

    ids: Sequence[int]
    targets: Sequence[int]


class Distribution(Protocol):
    """Full next-token distributions at a scored sequence's targets, computed when asked for."""

    def logprobs(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """`[len(rows), V]` fp32 log-probabilities at targets `rows` (a slice or an index)."""
        ...


@dataclass(slots=True)
class TeacherScores:
    """A scorer's answer to one request: `[n_targets]` nats, and full distributions where the scorer can give them."""

    logprobs: torch.Tensor
    entropy: torch.Tensor | None = None
    distribution: Distribution | None = None


class TeacherScorer(Protocol):
    """Scores tokens that somebody else sampled, at temperature 1, in one pass a sequence.

    `capabilities` names what it can give: `teacher` (log-probs of the tokens), `distribution` (the full vocabulary).
    """

    name: str
    capabilities: frozenset[str]

    def score(self, requests: Sequence[ScoreRequest]) -> list[TeacherScores]:
        """One answer a request, in order."""
        ...
