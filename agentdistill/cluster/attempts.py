"""Starting actors until they are there: one that Ray sent to a node that is just dying is started again."""

from __future__ import annotations

import time

from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from agentdistill.cluster.placement import Reservation
from agentdistill.errors import UserError
from agentdistill.faults import described

_PAUSE = 0.5  # seconds between two attempts
_LEAST = 0.1  # seconds that the last one has at least


class Attempts:
    """The time that new actors have to be there.

    Args:
        wait: seconds, from now on.
    """

    def __init__(self, reservation: Reservation, wait: float) -> None:
        self._reservation, self._wait, self._until = reservation, wait, time.monotonic() + wait

    @property
    def over(self) -> bool:
        """Whether it has passed."""
        return time.monotonic() > self._until

    @property
    def left(self) -> float:
        """Seconds that an attempt may take."""
        return max(self._until - time.monotonic(), _LEAST)

    def missing(self, who: str, error: Exception | None = None) -> UserError:
        """See `Reservation.missing`."""
        return self._reservation.missing(who, self._wait, error)

    def failed(self, who: str, error: RayError) -> None:
        """Take it that an attempt failed; another one can be made when this returns.

        Raises:
            UserError: when it was the actor's own failure, or there is no time for another.
        """
        if isinstance(error, GetTimeoutError):
            raise self.missing(who) from error
        if isinstance(error, RayTaskError):
            raise UserError(f"{who} could not be started: {described(error.cause or error)}") from error
        if self.over:
            raise self.missing(who, error) from error
        time.sleep(_PAUSE)
