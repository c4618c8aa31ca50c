"""Sampling with a served model: whole contexts there, ids and log-probs back; its prefix cache knows the turns before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import torch

from agentdistill.engines.registry import LanguageModel
from agentdistill.engines.wire import SEEDS, Ask, Connection, Said
from agentdistill.errors import UserError
from agentdistill.policies.base import Request, Sample, SamplingParams
from agentdistill.policies.model import CausalLM, chunk_rows

EXACT = (0.0, 1.0)
"""Temperatures at which a served model's log-probs are all that a `Sample` holds."""


AT_ONCE = 256
"""Messages that are waited for at one time, where they are taken up one by one."""
_PAUSE = 0.02
"""Seconds that `advance` waits for a message before it gives the word back, so that environments are heard."""


class ServedSampler:
    """`ContinuousSampler` over a `Connection`.

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
        self._waiting: dict[Future[list[Said]], tuple[Request, SamplingParams]] = {}
        self._threads: ThreadPoolExecutor | None = None

    def release(self, keys: Iterable[int] | None = None) -> None:
        """Nothing is kept here: contexts are found again by their ids. Without keys, what is still waited for is forgotten."""
        if keys is None and self._threads is not None:
            self._threads.shutdown(cancel_futures=True)  # an answer under way is waited for: weights may change next
            self._threads, self._waiting = None, {}

    def begin(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """Ask for messages, one thread each, beside those that are waited for (see `ContinuousSampler`)."""
        asks = [self._ask(request, params) for request in requests]
        self._check(params)
        if not self._waiting:
            self._sync()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="message")
        for request, ask in zip(requests, asks, strict=True):
            self._waiting[self._threads.submit(self._connection.ask, [ask])] = request, params

    def advance(self) -> list[tuple[Request, Sample]]:
        """The messages that have come, after a short wait at most (see `ContinuousSampler`)."""
        done = wait(self._waiting, _PAUSE, FIRST_COMPLETED).done
        found = [(self._waiting.pop(each), each.result()[0]) for each in done]
        return [(request, self._sample(request, params, said)) for (request, params), said in found]

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[Sample]:
        """Sample one message a request (see `Sampler`).

        Raises:
            UserError: for a context that is too long, and whatever the other side says.
        """
        self._check(params)
        self._sync()
        answers = self._connection.ask([self._ask(request, params) for request in requests])
        return [self._sample(request, params, said) for request, said in zip(requests, answers, strict=True)]

    def _check(self, params: SamplingParams) -> None:
        if params.temperature not in EXACT and not isinstance(self.lm, CausalLM):
            raise UserError(
                f"model '{self.name}' is served elsewhere, which tells no log-probs at temperature {params.temperature:g}; "
                "sample it at temperature 0 or 1"
            )

    def _sample(self, request: Request, params: SamplingParams, said: Said) -> Sample:
        stopped = bool(said.ids) and said.ids[-1] in request.stop_ids
        sample = Sample(said.ids, said.logprobs, said.logprobs, "stop" if stopped else "length")
        if params.temperature not in EXACT and isinstance(self.lm, CausalLM):
            sample.logprobs = tempered(self.lm, request.context, said.ids, params.temperature)
        return sample

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
