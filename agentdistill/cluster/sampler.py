"""Sampling by actors: an episode stays with one of them, whose cache knows its turns before."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from agentdistill.cluster.crew import Crew, Ticket
from agentdistill.cluster.troupe import Shipment, Troupe
from agentdistill.policies.base import Request, Sample, SamplingParams

_PAUSE = 0.02
"""Seconds that `advance` waits for a message before it gives the word back, so that environments are heard."""
_OWNERS = itertools.count(1)


class RaySampler:
    """`ContinuousSampler` over actors.

    A request goes to the actor that its key says, so who shares a batch with whom depends on the keys and on how many actors
    there are, and on nothing else: with as many, a run gives the same numbers again.

    Args:
        name: of the model.
        troupe: the actors.
        shipment: the weights that they are to speak with; None: those that they loaded themselves.

    Attributes:
        version: how many updates the weights have seen; the trainer sets it.
    """

    def __init__(self, name: str, troupe: Troupe, shipment: Shipment | None) -> None:
        self.name, self.version = name, 0
        self._troupe, self._shipment, self._number = troupe, shipment, 0
        self._waiting: dict[Ticket, Request] = {}
        self._gone: dict[int, list[int]] = {}  # by place: keys of episodes that are over
        self._owner, self._round = next(_OWNERS), 0

    @property
    def _crew(self) -> Crew:
        return self._troupe.crew

    def release(self, keys: Iterable[int] | None = None) -> None:
        """Forget episodes: some, when their actor is asked next; with no argument all of them, now.

        Then the weights may just have changed, too. Those of a sampler whose weights play begin to travel.
        """
        if keys is not None:
            for key in keys:
                self._gone.setdefault(key % len(self._crew), []).append(key)
            return
        self._crew.drop(self._waiting)
        self._waiting, self._gone, self._round = {}, {}, self._round + 1
        for place in range(len(self._crew)):
            self._crew.tell(place, "forget", self._owner, self._round)
        if self._shipment is not None and self._number == self._shipment.number:
            self._shipment.begin()

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[Sample]:
        """Sample one message a request (see `Sampler`).

        Raises:
            UserError: when an actor is lost and cannot be replaced.
        """
        parts: dict[int, list[int]] = {}
        for i, request in enumerate(requests):
            parts.setdefault(request.key % len(self._crew), []).append(i)
        self._number = self._troupe.bring(self._shipment)
        tickets = [self._ask(place, [requests[i] for i in part], params) for place, part in parts.items()]
        samples: dict[int, Sample] = {}
        for part, answer in zip(parts.values(), self._crew.all(tickets), strict=True):
            samples |= zip(part, answer, strict=True)
        return [samples[i] for i in range(len(requests))]

    def begin(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """Ask for messages, each by itself, beside those that are waited for (see `ContinuousSampler`)."""
        if not self._waiting:
            self._number = self._troupe.bring(self._shipment)
        for request in requests:
            self._waiting[self._ask(request.key % len(self._crew), [request], params)] = request

    def advance(self) -> list[tuple[Request, Sample]]:
        """The messages that have come, after a short wait at most (see `ContinuousSampler`)."""
        done = self._crew.some(list(self._waiting), _PAUSE)
        return [(self._waiting.pop(ticket), ticket.answer[0]) for ticket in done]

    def _ask(self, place: int, requests: Sequence[Request], params: SamplingParams) -> Ticket:
        about = self._number, self._owner, self._round
        return self._crew.put(place, "sample", *about, requests, params, self._gone.pop(place, ()))
