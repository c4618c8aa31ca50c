"""Actors that hold a model, and the weights they hold: sent once into Ray's object store, and from there once to every node."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from agentdistill.cluster.connect import ray
from agentdistill.cluster.crew import Crew
from agentdistill.cluster.host import ModelHost, SamplerHost, TeacherHost
from agentdistill.cluster.model_parcel import moving, pack
from agentdistill.cluster.placement import Place, Reservation
from agentdistill.engines.registry import LanguageModel, Setup
from agentdistill.engines.weights import state_of
from agentdistill.policies.load import folder_of
from agentdistill.policies.model import CausalLM

State = tuple[tuple[int, int], ...]
"""See `state_of`."""
_NUMBERS = itertools.count(1)
_HOSTS: dict[str, type[ModelHost]] = {"sampler": SamplerHost, "teacher": TeacherHost}


class Shipment:
    """The weights of a model in this process, for actors.

    Attributes:
        number: names the weights that were sent last; no two of this process have the same.
        shipped: how often they were sent.
        ref: where they are.
    """

    def __init__(self, lm: CausalLM) -> None:
        self._lm = lm
        self._state: State = ()
        self._leaving: tuple[State, Future[Any]] | None = None
        self._porter = ThreadPoolExecutor(1, "shipment")
        self.number, self.shipped = 0, 0
        self.ref: Any = None

    def begin(self) -> None:
        """Begin to send them, where they have changed since, beside what this thread does next.

        What was begun and nobody has waited for yet stays: whoever changes the weights more often than they are asked for does
        not send them each time.
        """
        state = state_of(self._lm.own())
        if self._leaving is None and state != self._state:
            self._leaving = state, self._porter.submit(lambda: ray.put(moving(self._lm)))

    def update(self) -> None:
        """Have them sent where they have changed since."""
        while state_of(self._lm.own()) != self._state:  # also while they were on their way: what left then is half of each
            self.begin()
            assert self._leaving is not None
            (state, sent), self._leaving = self._leaving, None
            self.ref = sent.result()
            self._state, self.number, self.shipped = state, next(_NUMBERS), self.shipped + 1

    def close(self) -> None:
        """Wait for what is on its way: Ray may not go before."""
        self._porter.shutdown()


class Troupe:
    """Actors that hold one kind of model: one in this process, whose weights they are brought, or one that they load by name.

    Args:
        lm: the model.
        places: an actor each.
        setup: of the engine.
        shipment: the model's weights, where it is in this process.

    Attributes:
        crew: the actors.

    Raises:
        UserError: when they cannot be started.
    """

    def __init__(
        self, lm: LanguageModel, places: Sequence[Place], reservation: Reservation, setup: Setup, shipment: Shipment | None
    ) -> None:
        section = setup.section
        self._now, self._there = shipment, 0
        if isinstance(lm, CausalLM):
            assert shipment is not None
            source = ray.put(pack(lm))
            shipment.update()
            self._there = shipment.number
        else:
            folder = folder_of(lm.name)
            source = lm.name if folder is None else str(folder.resolve())  # actors work in another folder

        def welcome(actor: Any) -> Any:
            now = self._now
            return actor.load.remote(source, None if now is None else now.ref, 0 if now is None else now.number)

        threads = max(1, int(places[0].cpus))
        made = _HOSTS[places[0].role], (threads, setup.budget, setup.padded)
        self.crew = Crew(
            places, reservation, made, welcome=welcome, timeout=section.timeout, wait=section.ray.wait, say=setup.say
        )  # fmt: skip

    def bring(self, shipment: Shipment | None) -> int:
        """Bring every actor up to date with a model of this process; the number of the weights that they have then.

        Args:
            shipment: None: of the model that they have loaded by its name.
        """
        if shipment is None:
            return 0
        shipment.update()
        if shipment.number != self._there:
            self._now = shipment  # first, so that an actor that is replaced meanwhile begins with these
            crew = self.crew
            crew.all([crew.put(place, "bring", shipment.ref, shipment.number) for place in range(len(crew))])
            self._there = shipment.number
        return self._there
