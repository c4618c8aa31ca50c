"""This machine's CPU: the library's own sampler, scorer, backward pass and optimizer, on models of the same shape.

A small model is measured whole. Of a larger one a few layers are, and what each more costs is their slope.
"""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from agentdistill.cost.episodes import Faded, made_up
from agentdistill.cost.meters import Passes
from agentdistill.cost.shape import Shape
from agentdistill.cost.work import Lengths
from agentdistill.policies.base import Request, SamplingParams, ScoreRequest
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.packed import STEPS
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.signals import Method
from agentdistill.training.optim import adamw, apply_step
from agentdistill.training.recompute import recomputing
from agentdistill.training.score import score
from agentdistill.training.update import accumulate

_WHOLE = 2 * 10**8  # parameters up to which all layers are measured
_DEPTHS = (1, 3)  # layers that are measured of others
_EARLY, _LATE = STEPS + 4, 8  # steps of a rollout before and after weights are laid out for it
_REPEATS, _LONG = 3, 2.0  # of a measurement, and seconds after which there is no other
_ROWS = 256  # that are decoded at a time, at most; by then arithmetic binds, and no more reading of weights
_TOKENS = 1024  # in one measured pass, about
_NUMBERS = 1 << 22  # of an optimizer step, at least
_SENT = 32 << 20  # bytes of a measured transfer


class Measured:
    """A `Meter` that measures.

    Args:
        method: whose loss is trained.
    """

    def __init__(self, method: Method) -> None:
        self._method = method
        self._known: dict[tuple[Any, ...], tuple[float, ...]] = {}
        self._made: tuple[object, CausalLM] | None = None

    def decode(self, shape: Shape, rows: float, context: int, steps: float) -> float:
        """See `Meter`. Beyond `_ROWS` a step takes as much longer as it has more rows."""
        beyond, n = max(1.0, rows / _ROWS), max(1, min(round(rows), _ROWS))

        early, late = self._extended(("decode", shape.ref, n, context), shape, lambda lm: self._stepped(lm, n, context))
        return beyond * (early * min(steps, _EARLY) + late * max(0.0, steps - _EARLY))

    @staticmethod
    def _stepped(lm: CausalLM, rows: int, context: int) -> tuple[float, float]:
        """Seconds of an early step of a rollout, and of a late one."""
        sampler = TransformersSampler(lm)
        requests = [Request(i, [1 + (i + j) % 50 for j in range(context)], i, frozenset()) for i in range(rows)]
        sampler.generate(requests, SamplingParams(max_tokens=_EARLY))  # what is made once a process is made here
        sampler.release()
        sampler.begin(requests, SamplingParams(max_tokens=1 + _EARLY + _LATE))
        taken = [_spent(sampler.advance) for _ in range(_EARLY + _LATE)]
        return statistics.mean(taken[:_EARLY]), statistics.median(taken[_EARLY:])

    def read(self, shape: Shape, rows: float, new: float, context: int) -> float:
        """See `Meter`. Of more tokens than `_TOKENS` so many are read, and others take as long."""
        n = max(1, min(round(rows), _ROWS))
        each = max(1, min(round(new), _TOKENS // n))
        beyond = max(1.0, rows * new / (n * each)) if rows * new > _TOKENS else 1.0

        def once(lm: CausalLM) -> tuple[float, ...]:
            sampler, first = TransformersSampler(lm), [[1 + (i + j) % 50 for j in range(context + each)] for i in range(n)]
            asked = [[Request(i, ids[:to], i, frozenset()) for i, ids in enumerate(first)] for to in (context, context + each)]

            def measured() -> float:
                sampler.generate(asked[0], SamplingParams(max_tokens=1))
                return _spent(lambda: sampler.generate(asked[1], SamplingParams(max_tokens=1)))

            measured()
            sampler.release()
            return (statistics.median(measured() for _ in range(_REPEATS)),)

        return beyond * self._extended(("read", shape.ref, n, each, context), shape, once)[0]

    def score(self, shape: Shape, passes: Passes) -> float:
        """See `Meter`."""
        rows, share = _rows(passes), passes.scored / passes.tokens

        def once(lm: CausalLM) -> tuple[float, ...]:
            scorer = TransformersScorer(lm, budget=rows * passes.length)
            n = min(passes.length - 1, max(1, round(share * passes.length)))
            targets = list(range(passes.length - n, passes.length))
            requests = [ScoreRequest([1 + (i + j) % 50 for j in range(passes.length)], targets) for i in range(rows)]
            return (_seconds(lambda: scorer.score(requests)) / (rows * passes.length),)

        return passes.tokens * self._extended(("score", shape.ref, rows, passes.length, round(share, 2)), shape, once)[0]

    def train(self, shape: Shape, passes: Passes, again: bool = False) -> float:
        """See `Meter`."""
        rows, share = _rows(passes), min(0.9, passes.scored / passes.tokens)
        episode = Lengths(1.0, share * passes.length, passes.length, 0.0, "made up", 1.0, 1.0, 1.0)

        def once(lm: CausalLM) -> tuple[float, ...]:
            played = made_up(rows, episode)
            teacher = Faded(TransformersScorer(lm))
            scored = score(lm, teacher, played, rows * passes.length, measures=self._method.measures, reference=teacher)
            streams = self._method.apply(scored.table, 1)

            def step() -> None:
                with recomputing(lm.model, again):
                    every = range(len(scored.sequences))
                    accumulate(lm, self._method, scored, streams, streams.coef, every, rows * passes.length, "a plan")

            taken = _seconds(step) / (rows * passes.length)
            lm.model.zero_grad(set_to_none=True)
            return (taken,)

        key = ("train", shape.ref, rows, passes.length, round(share, 2), again)
        return passes.tokens * self._extended(key, shape, once)[0]

    def step(self, numbers: float) -> float:
        """See `Meter`."""
        if ("step",) not in self._known:
            model = nn.Linear(1 << 11, _NUMBERS >> 11, bias=False)
            optimizer = adamw(model, 1e-6, (0.9, 0.999), 0.0)

            def once() -> float:
                model.weight.grad = torch.ones_like(model.weight)
                return _spent(lambda: apply_step(optimizer, 1e-6, 1.0, "a plan"))

            once()
            self._known["step",] = (statistics.median(once() for _ in range(_REPEATS)) / _NUMBERS,)
        return numbers * self._known["step",][0]

    def send(self, sent: float) -> float:
        """See `Meter`: over a socket of this machine."""
        if ("send",) not in self._known:
            self._known["send",] = (_loopback() / _SENT,)
        return sent * self._known["send",][0]

    def ranked(self) -> Measured:
        """See `Meter`: ranks on a CPU compute in the same numbers."""
        return self

    def _extended(self, key: tuple[Any, ...], shape: Shape, once: Callable[[CausalLM], tuple[float, ...]]) -> tuple[float, ...]:
        """What the whole depth takes, measured, or from a few layers' times."""
        if key not in self._known:
            depths = (shape.layers,) if shape.parameters <= _WHOLE else _DEPTHS
            lower = sorted({min(depth, shape.layers) for depth in depths})
            taken = [once(self._model(shape, depth)) for depth in lower]
            further, more = shape.layers - lower[-1], max(1, lower[-1] - lower[0])
            ends = zip(taken[0], taken[-1], strict=True)
            self._known[key] = tuple(max(few, many + max(0.0, many - few) / more * further) for few, many in ends)
        return self._known[key]

    def _model(self, shape: Shape, depth: int) -> CausalLM:
        """A real one; the last that was made is kept."""
        if self._made is None or self._made[0] != (shape.ref, depth):
            self._made = None  # no two of them at a time
            self._made = (shape.ref, depth), CausalLM(shape.cut(depth), cast(Any, None), shape.ref)
        return self._made[1]


def _rows(passes: Passes) -> int:
    """Sequences of a measured pass: as many as there are in a real one, and about `_TOKENS` tokens at most."""
    return max(1, round(min(passes.batch, passes.tokens, _TOKENS) / passes.length))


def _spent(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _seconds(act: Callable[[], object]) -> float:
    """The median of a few runs after one that does not count."""
    act()
    taken = [_spent(act)]
    while len(taken) < _REPEATS and sum(taken) < _LONG:
        taken.append(_spent(act))
    return statistics.median(taken)


def _loopback() -> float:
    """Seconds that `_SENT` bytes take through a socket of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as out:
        into, _ = server.accept()
        with into:
            sender = threading.Thread(target=out.sendall, args=(bytes(_SENT),))
            began, left, room = time.perf_counter(), _SENT, bytearray(1 << 20)
            sender.start()
            while left:
                left -= into.recv_into(room)
            sender.join()
            return time.perf_counter() - began
