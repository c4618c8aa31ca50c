"""What cannot be done with imported conversations, said once."""

from __future__ import annotations

from collections.abc import Iterable

from agentdistill.errors import UserError
from agentdistill.trajectory import Trajectory


def require_played(trajectories: Iterable[Trajectory], what: str) -> None:
    """Refuse imported conversations where an episode is needed that an environment or a sampler here answers for.

    Args:
        what: what they cannot be, and why.

    Raises:
        UserError: naming the first of them.
    """
    first = next((each for each in trajectories if each.imported), None)
    if first is not None:
        raise UserError(f"trajectory '{first.id}' was imported, so it cannot be {what}")
