"""What an actor is that plays or scores: one model and whoever uses it, told what to do by the driver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from agentdistill.cluster.arrays import Array, array
from agentdistill.cluster.connect import ray
from agentdistill.cluster.model_parcel import Parcel, Weights, bring, unpack
from agentdistill.cluster.player import Player
from agentdistill.policies.base import Request, Sample, SamplingParams, ScoreRequest
from agentdistill.policies.load import load_model
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import HiddenDistribution, TransformersScorer

Scored = tuple[Array, Array, Array]
"""Log-probs `[n]`, entropies `[n]` and last hidden states `[n, d]` at a request's targets."""


class Stale(Exception):
    """A sample was asked of weights that this actor does not have, or by somebody who has given it up since."""


class ModelHost:
    """A model that samples and scores.

    Args:
        threads: of torch's.
        budget: tokens that are scored in one pass.
        padded: whether a model that is loaded by its name pads its passes.
    """

    def __init__(self, threads: int, budget: int, padded: bool = False) -> None:
        self._threads, self._budget, self._padded = threads, budget, padded
        self._number, self._owner, self._round = 0, 0, 0
        self._lm: CausalLM | None = None

    async def load(self, source: Parcel | str, weights: Weights | None, number: int) -> str:
        """Make the model, of a parcel and its weights or as a reference names it; the node that this is on.

        Args:
            number: names the weights.
        """
        made = partial(load_model, source) if isinstance(source, str) else partial(unpack, source, weights or {})
        torch.set_num_threads(self._threads)
        self._lm = await asyncio.get_running_loop().run_in_executor(None, made)
        if isinstance(source, str) and self._padded:
            self._lm.packed = False
        self._sampler = TransformersSampler(self._lm)
        self._scorer = TransformersScorer(self._lm, budget=self._budget)
        self._player = Player(self._sampler, self._threads)
        self._number = number
        node: str = ray.get_runtime_context().get_node_id()
        return node

    async def bring(self, weights: Weights, number: int) -> None:
        """Take new weights, and forget whatever was computed with those before."""

        def take() -> None:
            self._player.forget()
            bring(self._model, weights)
            self._number = number

        await self._errand(take)

    async def sample(
        self, number: int, owner: int, round_: int, requests: Sequence[Request], params: SamplingParams, gone: Sequence[int]
    ) -> list[Sample]:
        """Messages, in the requests' order.

        Args:
            number: of the weights that are to say them.
            owner: the sampler that asks; another's episodes are forgotten.
            round_: see `forget`.
            gone: keys of episodes that are over.
        """
        if number != self._number:
            raise Stale(f"weights {number} are asked, and {self._number} are here")
        if owner != self._owner:
            self._owner, self._round = owner, round_
            await self._errand(self._player.forget)
        else:
            await self.forget(owner, round_, gone)
        if owner != self._owner or round_ != self._round:
            raise Stale("what was asked was given up before it came")
        return await asyncio.wrap_future(self._player.sample(requests, params))

    async def forget(self, owner: int, round_: int, gone: Sequence[int] = ()) -> None:
        """Forget episodes that are over; when a new round begins, all of the one before. Of its own sampler's alone.

        Calls may arrive in another order than they were made.
        """
        if owner == self._owner and round_ > self._round:
            self._round = round_
            await self._errand(self._player.forget)
        elif gone and (owner, round_) == (self._owner, self._round):
            await self._errand(partial(self._sampler.release, gone))

    async def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """A teacher's answers, one a request."""
        scored: list[Scored] = await self._errand(partial(self._scored, requests))
        return scored

    async def head(self) -> tuple[Array, Array | None]:
        """Weight `[V, d]` and bias `[V]` of the output head, which makes distributions of hidden states."""
        head = self._model.head
        return array(head.weight), None if head.bias is None else array(head.bias)

    async def _errand(self, function: Callable[[], Any]) -> Any:
        return await asyncio.wrap_future(self._player.errand(function))

    @property
    def _model(self) -> CausalLM:
        assert self._lm is not None
        return self._lm

    def _scored(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        out: list[Scored] = []
        for each in self._scorer.score(requests):
            assert isinstance(each.distribution, HiddenDistribution)
            assert each.entropy is not None
            out.append((array(each.logprobs), array(each.entropy), array(each.distribution.hidden)))
        return out


class SamplerHost(ModelHost):
    """One that plays, as `ps` and Ray's dashboard name it."""


class TeacherHost(ModelHost):
    """One that scores."""
