"""Which of several processes this is, as `torchrun` tells each by its environment. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from agentdistill.errors import UserError


@dataclass(frozen=True, slots=True)
class Rank:
    """A process among the trainer ranks.

    Attributes:
        number: from 0, who runs the experiment.
        world: how many there are.
        local: its number on its machine, and of its GPU there.
    """

    number: int
    world: int
    local: int

    @classmethod
    def here(cls, environ: Mapping[str, str] = os.environ) -> Rank | None:
        """This process's; None where it is the only one.

        Raises:
            UserError: when the launcher's variables are no numbers.
        """
        if "RANK" not in environ or "WORLD_SIZE" not in environ or "MASTER_ADDR" not in environ:
            return None
        try:
            rank = cls(int(environ["RANK"]), int(environ["WORLD_SIZE"]), int(environ.get("LOCAL_RANK", environ["RANK"])))
        except ValueError as error:
            raise UserError("RANK, WORLD_SIZE and LOCAL_RANK are set by torchrun, and one of them is no number") from error
        return rank if rank.world > 1 else None


def speaks(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the one to tell people what went wrong: of several that met with the same, the first."""
    return environ.get("RANK", "0") == "0" or "WORLD_SIZE" not in environ
