"""Sampling with a served model: whole contexts there, ids and log-probs back; its prefix cache knows the turns before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from agentdistill.engines.registry import LanguageModel
from agentdistill.engines.wire import SEEDS, Ask, Connection
from agentdistill.errors import UserError
from agentdistill.policies.base import Request, Sample, SamplingParams
from agentdistill.policies.model import CausalLM, chunk_rows

EXACT = (0.0, 1.0)
"""Temperatures at which a served model's log-probs are all that a `Sample` holds."""


class ServedSampler:
    """`Sampler` over a `Connection`.

    A sample depends on its context and seed as far as the other side's arithmetic does not depend on what else is in its batch,
    which moves a log-prob by some 1e-6 nats and can, rarely, change a token.

    Log-probs come back at temperature 1, before anything is cut off. At another temperature the column at the sampling
    temperature cannot be had from them; it is computed here, by a pass over the context with the weights in this process.

    Args:
        lm: whose tokens these are.
        connection: where it is served.
        sync: brings the weights there up to date; called before anything is asked.
        cache: whether the prefix cache may be used.

    Attributes:
        version: how many updates the weights have seen; the trainer sets it.
    """

    def __init__(
        self, lm: LanguageModel, connection: Connection, *, sync: Callable[[], None] = lambda: None, cache: bool = True
    ) -> None:
        self.lm, self.name, self.version = lm, lm.name, 0
        self._connection, self._sync, self._cache = connection, sync, cache

    def release(self, keys: Iterable[int] | None = None) -> None:
        """Nothing is kept here: contexts are found again by their ids."""

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[Sample]:
        """Sample one message a request (see `Sampler`).

        Raises:
            UserError: for a context that is too long, and whatever the other side says.
        """
        if params.temperature not in EXACT and not isinstance(self.lm, CausalLM):
            raise UserError(
                f"model '{self.name}' is served elsewhere, which tells no log-probs at temperature {params.temperature:g}; "
                "sample it at temperature 0 or 1"
            )
        self._sync()
        answers = self._connection.ask([self._ask(request, params) for request in requests])
        out = []
        for request, said in zip(requests, answers, strict=True):
            stopped = bool(said.ids) and said.ids[-1] in request.stop_ids
            sample = Sample(said.ids, said.logprobs, said.logprobs, "stop" if stopped else "length")
            if params.temperature not in EXACT and isinstance(self.lm, CausalLM):
                sample.logprobs = tempered(self.lm, request.context, said.ids, params.temperature)
            out.append(sample)
        return out

    def _ask(self, request: Request, params: SamplingParams) -> Ask:
        room = self._connection.context - len(request.context)
        if room < 1:
            raise UserError(
                f"a context of {len(request.context)} tokens leaves no room in the {self._connection.context} that "
                f"{self._connection.name} takes; lower env.max_context, or start it with a longer one"
            )
        return Ask(
            list(request.context), min(params.max_tokens, request.max_tokens or params.max_tokens, room), params.temperature,
            params.top_p, params.top_k, request.seed % SEEDS, request.stop_ids, cached=self._cache,
        )  # fmt: skip


@torch.no_grad()
def tempered(lm: CausalLM, context: Sequence[int], ids: Sequence[int], temperature: float) -> list[float]:
    """Log-probs of `ids` after a context at a temperature, by one pass of the model in this process."""
    lm.model.train(False)
    hidden = lm.hidden(torch.tensor([[*context, *ids]], device=lm.device))[0, len(context) - 1 : -1]
    out: list[float] = []
    for rows, part in zip(
        torch.split(hidden, chunk_rows(lm.head)), torch.split(torch.tensor(ids), chunk_rows(lm.head)), strict=True
    ):
        logprobs = torch.log_softmax(lm.logits(rows) / temperature, dim=-1)
        out += logprobs.gather(1, part.to(logprobs.device)[:, None])[:, 0].tolist()
    return out
