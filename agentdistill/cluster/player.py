"""A sampler in a thread of its own: messages join what is being sampled between two tokens, and each call waits for its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import torch

from agentdistill.policies.base import ContinuousSampler, Request, Sample, SamplingParams


@dataclass(slots=True, eq=False)
class _Call:
    """Messages that are asked for together, in one batch from their first token on."""

    requests: Sequence[Request]
    params: SamplingParams
    answer: Future[list[Sample]]
    samples: dict[int, Sample] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Errand:
    """Something else that this thread does with the model, between two tokens."""

    function: Callable[[], Any]
    answer: Future[Any]


class Player:
    """One thread that samples and does errands.

    Args:
        sampler: nobody else's.
        threads: of torch's; 0: its own choice.
    """

    def __init__(self, sampler: ContinuousSampler, threads: int = 0) -> None:
        self._sampler, self._threads = sampler, threads
        self._inbox: SimpleQueue[_Call | _Errand] = SimpleQueue()
        self._waiting: deque[_Call] = deque()
        self._active: dict[int, _Call] = {}  # by key of the message that is being sampled
        threading.Thread(target=self._work, name="player", daemon=True).start()

    def sample(self, requests: Sequence[Request], params: SamplingParams) -> Future[list[Sample]]:
        """Ask for messages, a sample each; beside others only where those are sampled by the same parameters."""
        call = _Call(requests, params, Future())
        self._inbox.put(call)
        return call.answer

    def errand(self, function: Callable[[], Any]) -> Future[Any]:
        """Have a function called that uses the model, or the sampler."""
        errand = _Errand(function, Future())
        self._inbox.put(errand)
        return errand.answer

    def forget(self) -> None:
        """Drop every message that is waited for, and what is cached. For errands."""
        self._fail(RuntimeError("the message was given up"))

    def _work(self) -> None:
        if self._threads:
            torch.set_num_threads(self._threads)  # counts for the thread that says it
        while True:
            self._hear(wait=not self._active and not self._waiting)
            try:
                self._begin()
                for request, sample in self._sampler.advance():
                    self._finished(request, sample)
            except Exception as error:
                self._fail(error)

    def _hear(self, *, wait: bool) -> None:
        """Take whatever was asked."""
        while True:
            try:
                item = self._inbox.get(block=wait)
            except Empty:
                return
            if isinstance(item, _Call):
                self._waiting.append(item)
            else:
                try:
                    item.answer.set_result(item.function())
                except Exception as error:
                    item.answer.set_exception(error)
            wait = wait and not self._waiting

    def _begin(self) -> None:
        """Take up all that wait and are sampled as those are that are being sampled."""
        now: list[_Call] = []
        params = next(iter(self._active.values())).params if self._active else None
        while self._waiting and self._waiting[0].params == (params or self._waiting[0].params):
            now.append(self._waiting.popleft())
            params = now[0].params
        for call in now:
            self._active |= {request.key: call for request in call.requests}
        if now:
            self._sampler.begin([request for call in now for request in call.requests], now[0].params)

    def _finished(self, request: Request, sample: Sample) -> None:
        call = self._active.pop(request.key)
        call.samples[request.key] = sample
        if len(call.samples) == len(call.requests):
            call.answer.set_result([call.samples[each.key] for each in call.requests])

    def _fail(self, error: Exception) -> None:
        calls = {id(call): call for call in (*self._active.values(), *self._waiting)}
        self._active.clear()
        self._waiting.clear()
        self._sampler.release()
        for call in calls.values():
            call.answer.set_exception(error)
