"""The actors of one role: asked side by side; one that is lost is replaced, and what it was asked is asked again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import RayError, RayTaskError

from agentdistill.cluster.attempts import Attempts
from agentdistill.cluster.connect import ray
from agentdistill.cluster.placement import Place, Reservation
from agentdistill.errors import UserError
from agentdistill.faults import described

DEATHS = 5
"""How often a question may be lost with the actor that it was asked; then it is the question."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A question on its way.

    Attributes:
        arguments: without what the crew adds.
        answer: once it is `done`.
    """

    place: int
    method: str
    arguments: tuple[Any, ...]
    ref: Any = None
    deadline: float = 0.0
    deaths: int = 0
    done: bool = False
    answer: Any = None


@dataclass(slots=True, eq=False)
class _Member:
    """An actor at a place, and what was asked of it."""

    place: Place
    actor: Any = None
    node: str = ""
    out: list[Ticket] = field(default_factory=list)


class Crew:
    """The actors of one role and model.

    Args:
        made: the actor's class, and the arguments that it is made with.
        welcome: tells a new actor what it must know; the reference of its answer, which is the node that it is on.
        timeout: seconds that an answer may take; an actor that takes longer is lost.
        wait: seconds that a new actor may take to be there.

    Attributes:
        replaced: how many were lost so far.

    Raises:
        UserError: when they cannot be started.
    """

    def __init__(
        self, places: Sequence[Place], reservation: Reservation, made: tuple[type, tuple[Any, ...]], *,
        welcome: Callable[[Any], Any], timeout: float, wait: float, say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._reservation, self._made, self._welcome = reservation, made, welcome
        self._timeout, self._wait, self._say = timeout, wait, say
        self.replaced = 0
        self._members = [_Member(place) for place in places]
        self._start(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def put(self, place: int, method: str, *arguments: Any) -> Ticket:
        """Ask the actor at a place, without waiting."""
        ticket = Ticket(place, method, arguments)
        self._members[place].out.append(ticket)
        self._send(ticket)
        return ticket

    def tell(self, place: int, method: str, *arguments: Any) -> None:
        """As `put`, and nobody will ask for the answer, or mind if there is none."""
        if (actor := self._members[place].actor) is not None:  # another thread replaces it, by one that knows nothing yet
            getattr(actor, method).remote(*arguments)

    def all(self, tickets: Iterable[Ticket]) -> list[Any]:
        """Every answer, in order; raises as `some` does."""
        asked = list(tickets)
        while left := [ticket for ticket in asked if not ticket.done]:
            self.some(left, self._timeout)
        return [ticket.answer for ticket in asked]

    def some(self, tickets: Sequence[Ticket], seconds: float) -> list[Ticket]:
        """The tickets that are done, after the first of them is, or some seconds at most. Lost actors are replaced meanwhile.

        Raises:
            UserError: what the actor raised; when an actor cannot be replaced, or a question costs `DEATHS` of them.
        """
        if not tickets:
            return []
        left = min(min(ticket.deadline for ticket in tickets) - time.monotonic(), seconds)
        refs = {ticket.ref: ticket for ticket in tickets}
        ready, _ = ray.wait(list(refs), num_returns=1, timeout=max(left, 0))
        if ready:
            ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0, fetch_local=False)
        lost: dict[int, str] = {}
        for ref in ready:
            self._take(refs[ref], lost)
        now = time.monotonic()
        for ticket in tickets:
            if not ticket.done and now > ticket.deadline and ticket.place not in lost:
                lost[ticket.place] = f"it gave no answer within {self._timeout:g} s (engine.timeout)"
        if lost:
            self._replace({self._members[place]: why for place, why in lost.items()})
        return [ticket for ticket in tickets if ticket.done]

    def drop(self, tickets: Iterable[Ticket]) -> None:
        """Expect no answer any more."""
        for ticket in tickets:
            out = self._members[ticket.place].out
            if ticket in out:
                out.remove(ticket)

    def close(self) -> None:
        """End every actor."""
        for member in self._members:
            self._kill(member)

    def _take(self, ticket: Ticket, lost: dict[int, str]) -> None:
        try:
            ticket.answer = ray.get(ticket.ref)
        except RayTaskError as error:
            self.drop([ticket])
            cause = error.cause if isinstance(error.cause, Exception) else error
            if isinstance(cause, UserError):
                raise cause from error
            name = self._members[ticket.place].place.name
            raise UserError(f"{name} failed in {ticket.method}: {described(cause)}") from error
        except RayError:
            lost[ticket.place] = ""
            return
        ticket.done = True
        self.drop([ticket])

    def _send(self, ticket: Ticket) -> None:
        ticket.deadline = time.monotonic() + self._timeout
        ticket.ref = getattr(self._members[ticket.place].actor, ticket.method).remote(*ticket.arguments)

    def _replace(self, lost: Mapping[_Member, str]) -> None:
        """Replace actors, and ask again what they were asked."""
        began, before = time.monotonic(), {member: member.node for member in lost}
        self.replaced += len(lost)
        for member in lost:
            self._kill(member)
            for ticket in member.out:
                ticket.deaths += 1
                if ticket.deaths >= DEATHS:
                    raise UserError(
                        f"{member.place.name} was lost {DEATHS} times with the same question in {ticket.method}; Ray's logs of "
                        "it tell more"
                    )
        self._start(list(lost))
        alive = {node.id for node in self._reservation.nodes()}
        for member, why in lost.items():
            old, new = (self._reservation.called(node) for node in (before[member], member.node))
            reason = why or ("its process ended" if before[member] in alive else "its node is gone")
            self._say(
                f"{member.place.name} on {old} was lost: {reason}; replaced {'there' if old == new else f'on {new}'} after "
                f"{time.monotonic() - began:.1f} s, and asked again what it had not answered ({len(member.out)})"
            )
            for ticket in member.out:
                self._send(ticket)

    def _start(self, members: Sequence[_Member]) -> None:
        """Start actors, all at the same time."""
        attempts = Attempts(self._reservation, self._wait)
        left = list(members)
        while left:
            welcomed = [self._begun(member) for member in left]
            again: list[_Member] = []
            for member, ref in zip(left, welcomed, strict=True):
                try:
                    member.node = ray.get(ref, timeout=attempts.left)
                except RayError as error:
                    self._kill(member)
                    attempts.failed(member.place.name, error)
                    again.append(member)
            left = again

    def _begun(self, member: _Member) -> Any:
        kind, arguments = self._made
        actor = ray.remote(kind).options(**self._reservation.options(member.place)).remote(*arguments)
        member.actor = actor
        return self._welcome(actor)

    @staticmethod
    def _kill(member: _Member) -> None:
        if member.actor is not None and ray.is_initialized():
            ray.kill(member.actor, no_restart=True)
        member.actor = None
