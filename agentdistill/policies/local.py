"""Sampling with a Transformers model: one key-value cache across the turns of every episode.

Each token of an episode goes through the model once. A request names its whole context; what the cache already
holds under the episode's key is not computed again, and a context that departs from the cached one is cropped
to where they agree.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from agentdistill.policies.attention import grouped
from agentdistill.policies.base import Request, Sample, SamplingParams
from agentdistill.policies.decoding import DecodingBody
from agentdistill.policies.kv import RaggedCache
from agentdistill.policies.model import CausalLM
from agentdistill.policies.packed import PackedLinears
from agentdistill.policies.sampling import choose
from agentdistill.policies.shared import LEAST, common_prefix


@dataclass(slots=True)
class _Row:
    """A cached episode: the ids whose keys are in the cache."""

    key: int
    tokens: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Job:
    """A message being sampled."""

    request: Request
    limit: int
    rng: random.Random
    pending: list[int]
    sample: Sample = field(default_factory=lambda: Sample([], [], [], "length"))


class TransformersSampler:
    """`ContinuousSampler` over a `CausalLM`: rows join and leave the batch between two tokens.

    What episodes that are begun together begin alike with goes through the model once.

    Args:
        lm: the model; its weights may change between calls of `generate` once `release` was called.
        prefill_tokens: rows × new tokens in one prefill pass at most.

    Attributes:
        forwarded: tokens that went through the model so far (padding not counted).
        version: how many updates the weights have seen; the trainer sets it.
    """

    def __init__(self, lm: CausalLM, *, prefill_tokens: int = 16_384) -> None:
        self.lm, self.prefill_tokens = lm, prefill_tokens
        self.name, self.version, self.forwarded = lm.name, 0, 0
        self._cache, self._rows = RaggedCache(), list[_Row]()
        self._body = DecodingBody.of(lm.model)
        self._linears = PackedLinears([lm.head] if self._body else lm.model.modules())
        self._checked = False
        self._active, self._params, self._logits = list[_Job](), SamplingParams(), torch.empty(0)

    def release(self, keys: Iterable[int] | None = None) -> None:
        """Forget these episodes, of which none is being sampled; with no argument, all of them and the cache's memory too."""
        if keys is None:
            self._cache, self._rows, self._active, self._logits = RaggedCache(), [], [], torch.empty(0)
            self._linears.forget()
            if self._body is not None:
                self._body.forget()
            return
        gone = set(keys)
        for i in reversed(range(len(self._rows))):
            if self._rows[i].key in gone:
                self._swap(i, len(self._rows) - 1)
                self._rows.pop()

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[Sample]:
        """Sample one message a request (see `Sampler`)."""
        if self._active:
            raise RuntimeError("messages that were begun are still being sampled")
        self.begin(requests, params)
        done: dict[int, Sample] = {}
        while self._active:
            done |= {request.key: sample for request, sample in self.advance()}
        return [done[request.key] for request in requests]

    @torch.no_grad()
    def begin(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """Take requests up beside those that are being sampled (see `ContinuousSampler`)."""
        self.lm.model.train(False)
        first = len(self._active)
        jobs = [self._admit(first + i, request, params) for i, request in enumerate(requests)]
        if jobs:
            self._params = params
            logits = self._prefill(jobs, first)
            self._logits = torch.cat([self._logits, logits]) if first else logits
            self._active += jobs

    @torch.no_grad()
    def advance(self) -> list[tuple[Request, Sample]]:
        """One token for everybody who is being sampled; what is finished by it (see `ContinuousSampler`)."""
        if not self._active:
            return []
        active = self._active
        for job, token, lp, lp1 in zip(
            active, *choose(self._logits, self._params, [job.rng.random() for job in active]), strict=True
        ):
            job.sample.ids.append(token)
            job.sample.logprobs.append(lp)
            job.sample.logprobs_t1.append(lp1)
            job.pending = [token]
            if token in job.request.stop_ids:
                job.sample.finish = "stop"
        running = [i for i, job in enumerate(active) if self._running(job)]
        done = [(job.request, job.sample) for job in active if not self._running(job)]
        self._active = self._compact(active, running)
        if self._active:
            self._logits = self._forward(slice(0, len(self._active)), self._active)
        return done

    @staticmethod
    def _running(job: _Job) -> bool:
        return job.sample.finish != "stop" and len(job.sample.ids) < job.limit

    def _admit(self, place: int, request: Request, params: SamplingParams) -> _Job:
        """Give the request row number `place`, and find what of its context the cache lacks."""
        context = list(request.context)
        at = next((i for i in range(place, len(self._rows)) if self._rows[i].key == request.key), None)
        if at is None:
            self._rows.append(_Row(request.key))
            at = len(self._rows) - 1
        self._swap(place, at)
        row = self._rows[place]
        known = len(row.tokens)
        if context[:known] != row.tokens:
            known = next(i for i, (a, b) in enumerate(zip([*context, -1], [*row.tokens, -2], strict=False)) if a != b)
        known = min(known, len(context) - 1)  # the last token is computed again for its logits
        row.tokens = context[:known]
        limit = min(params.max_tokens, request.max_tokens or params.max_tokens)
        return _Job(request, limit, random.Random(request.seed), context[known:])

    def _prefill(self, jobs: list[_Job], first: int) -> torch.Tensor:
        """Feed the pending tokens of jobs, of which the first has row `first`, in passes of bounded size; their logits `[n, V]`
        after each one's last token."""
        self._share({first + i: job for i, job in enumerate(jobs) if not self._rows[first + i].tokens})
        out: list[torch.Tensor] = []
        start = 0
        while start < len(jobs):
            stop, longest = start, 0
            while stop < len(jobs):
                longest = max(longest, len(jobs[stop].pending))
                if stop > start and longest * (stop + 1 - start) > self.prefill_tokens:
                    break
                stop += 1
            out.append(self._forward(slice(first + start, first + stop), jobs[start:stop]))
            start = stop
        return torch.cat(out)

    def _share(self, jobs: dict[int, _Job]) -> None:
        """Feed what several new episodes, by row, begin alike with once, and give all of them its keys: the system prompt and
        tools of all, then the task of each group."""
        if len(jobs) < 2:
            return
        alike = min(common_prefix([job.pending for job in jobs.values()]), min(len(job.pending) for job in jobs.values()) - 1)
        if alike * (len(jobs) - 1) >= LEAST:
            (source, one), *others = jobs.items()
            beginning, rest = one.pending[:alike], one.pending[alike:]
            one.pending = beginning
            self._forward(slice(source, source + 1), [one])
            one.pending = rest
            self._cache.copy(source, [row for row, _ in others], len(self._rows[source].tokens))
            for row, job in others:
                self._rows[row].tokens = list(self._rows[source].tokens)
                job.pending = job.pending[alike:]
            alike = 0
        groups: dict[int, dict[int, _Job]] = {}
        for row, job in jobs.items():
            groups.setdefault(job.pending[alike], {})[row] = job
        if len(groups) > 1:
            for group in groups.values():
                self._share(group)

    def _forward(self, rows: slice, jobs: list[_Job]) -> torch.Tensor:
        """One pass over `rows` (whose jobs these are): cache the pending tokens, return the last logits `[n, V]`."""
        device = self.lm.device
        fresh = [job.pending for job in jobs]
        cached = [len(self._rows[rows.start + i].tokens) for i in range(len(jobs))]
        width = max(len(p) for p in fresh)
        span = max(c for c in cached) + width
        ids = torch.tensor([p + [0] * (width - len(p)) for p in fresh], device=device)
        positions = torch.tensor(cached, device=device)[:, None] + torch.arange(width, device=device)
        mask = torch.arange(span, device=device) <= positions[:, :, None]
        self._cache.begin(rows, positions, span, max(len(self._rows), rows.stop))
        decoding = self._linears.active(len(jobs)) if width == 1 else contextlib.nullcontext(False)
        with grouped(self.lm.model), decoding as packed:
            if width == 1 and self._body is not None:
                hidden = self._decode(self._body, ids, positions, mask[:, None], packed)
            else:
                hidden = self._pass(ids, positions, mask[:, None])
            last = torch.tensor([len(p) - 1 for p in fresh], device=device)
            logits = self.lm.logits(hidden[torch.arange(len(jobs), device=device), last])
        for i, job in enumerate(jobs):
            self._rows[rows.start + i].tokens += job.pending
            self.forwarded += len(job.pending)
        return logits

    def _pass(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The model's own forward pass over the cache."""
        return self.lm.hidden(ids, attention_mask=mask, position_ids=positions, past_key_values=self._cache, use_cache=True)

    def _decode(
        self, body: DecodingBody, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, packed: bool
    ) -> torch.Tensor:
        """The same for one token a row, by the short way, as long as that agrees."""
        if self._checked:
            return body(ids, positions, mask, self._cache, packed)
        self._checked, whole = True, self._pass(ids, positions, mask)
        # Second, so that its keys are those that stay: when the check is made must not be seen in what is sampled.
        hidden = body(ids, positions, mask, self._cache, packed)
        if torch.allclose(hidden, whole, rtol=1e-3, atol=1e-3 * float(whole.abs().max())):
            return hidden
        self._body, self._linears = None, PackedLinears(self.lm.model.modules())
        return self._pass(ids, positions, mask)

    def _compact(self, active: list[_Job], running: list[int]) -> list[_Job]:
        """Swap the finished rows behind the running ones."""
        for place, i in enumerate(running):
            if place != i:
                self._swap(place, i)
                active[place], active[i] = active[i], active[place]
        return active[: len(running)]

    def _swap(self, a: int, b: int) -> None:
        if a != b:
            self._cache.swap(a, b)
            self._rows[a], self._rows[b] = self._rows[b], self._rows[a]
