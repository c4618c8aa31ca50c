"""Sampling with a served model: whole contexts there, ids and log-probs back; its prefix cache knows the turns before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np
import torch

from agentdistill.engines.registry import LanguageModel
from agentdistill.engines.wire import SEEDS, Ask, Connection, Said
from agentdistill.errors import UserError
from agentdistill.policies.base import Request, Sample, SamplingParams
from agentdistill.policies.model import CausalLM, chunk_rows
from agentdistill.policies.shared import budget_batches, states_at

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
    temperature cannot be had from them; it is computed here, by passes over the contexts with the weights in this process.

    Args:
        lm: whose tokens these are.
        connection: where it is served.
        sync: brings the weights there up to date; called before anything is asked.
        cache: whether the prefix cache may be used.
        budget: tokens that one pass here computes.

    Attributes:
        version: how many updates the weights have seen; the trainer sets it.
    """

    def __init__(
        self, lm: LanguageModel, connection: Connection, *,
        sync: Callable[[], None] = lambda: None, cache: bool = True, budget: int = 8192,
    ) -> None:  # fmt: skip
        self.lm, self.name, self.version = lm, lm.name, 0
        self._connection, self._sync, self._cache, self._budget = connection, sync, cache, budget
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
        samples = self._samples([(*asked, said) for asked, said in found])
        return [(request, sample) for ((request, _), _), sample in zip(found, samples, strict=True)]

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[Sample]:
        """Sample one message a request (see `Sampler`).

        Raises:
            UserError: for a context that is too long, and whatever the other side says.
        """
        self._check(params)
        self._sync()
        answers = self._connection.ask([self._ask(request, params) for request in requests])
        return self._samples([(request, params, said) for request, said in zip(requests, answers, strict=True)])

    def _check(self, params: SamplingParams) -> None:
        if params.temperature not in EXACT and not isinstance(self.lm, CausalLM):
            raise UserError(
                f"model '{self.name}' is served elsewhere, which tells no log-probs at temperature {params.temperature:g}; "
                "sample it at temperature 0 or 1"
            )

    def _samples(self, answers: Sequence[tuple[Request, SamplingParams, Said]]) -> list[Sample]:
        samples = [
            Sample(said.ids, said.logprobs, said.logprobs, "stop" if request.stop_ids & {*said.ids[-1:]} else "length")
            for request, _, said in answers
        ]
        other = [i for i, (_, params, _) in enumerate(answers) if params.temperature not in EXACT]
        if other and isinstance(self.lm, CausalLM):
            asked = [(answers[i][0].context, answers[i][2].ids, answers[i][1].temperature) for i in other]
            for i, column in zip(other, tempered(self.lm, asked, self._budget), strict=True):
                samples[i].logprobs = column
        return samples

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
def tempered(lm: CausalLM, said: Sequence[tuple[Sequence[int], Sequence[int], float]], budget: int) -> list[list[float]]:
    """Log-probs of what was `said`, each a context, the ids behind it and a temperature, by the model in this process.

    Args:
        budget: tokens that one pass computes.
    """
    lm.model.train(False)
    sequences = [[*context, *ids] for context, ids, _ in said]
    size, out = chunk_rows(lm.head), [list[float]() for _ in said]
    for batch in budget_batches(sequences, budget, lm.packed):
        columns = [np.arange(len(said[i][0]) - 1, len(sequences[i]) - 1) for i in batch]
        states = states_at(lm, [sequences[i] for i in batch], columns)
        for i, own in zip(batch, torch.split(states, [len(each) for each in columns]), strict=True):
            ids = torch.tensor(said[i][1], dtype=torch.long, device=own.device)
            for rows, part in zip(torch.split(own, size), torch.split(ids, size), strict=True):
                logprobs = torch.log_softmax(lm.logits(rows) / said[i][2], dim=-1)
                out[i] += logprobs.gather(1, part[:, None])[:, 0].tolist()
    return out
