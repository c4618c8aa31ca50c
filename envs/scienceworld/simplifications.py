"""What can be made easier in the world."""

from __future__ import annotations

from collections.abc import Sequence

from agentdistill.errors import UserError, nearest

EASY = ("noElectricalAction", "openDoors", "selfWateringFlowerPots", "teleportAction")  # the simulator's `easy`
SIMPLIFICATIONS = (*EASY, "openContainers")


def simplifications(names: Sequence[str] | str | None) -> tuple[str, ...]:
    """Names of the simplifications, sorted; `easy` stands for its four.

    Raises:
        UserError: for a name that there is not.
    """
    wanted: set[str] = set()
    for name in (names,) if isinstance(names, str) else names or ():
        if name not in ("easy", *SIMPLIFICATIONS):
            raise UserError(f"ScienceWorld has no simplification '{name}'{nearest(str(name), ('easy', *SIMPLIFICATIONS))}")
        wanted.update(EASY if name == "easy" else (name,))
    return tuple(sorted(wanted))


def for_task(names: Sequence[str], task: str) -> str:
    """As the simulator takes them. Tasks about electricity keep their actions, as they do under its own `easy`."""
    electrical = "power-component" in task or "conductivity" in task
    return ",".join(name for name in names if not (electrical and name == "noElectricalAction"))
