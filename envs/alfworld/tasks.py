"""What a game asks for, told from the name of its folder: the type of its task and the things it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentdistill.errors import UserError, nearest

# ALFWorld's six, in the order of its numbers 1 to 6, with the short names that results are reported under.
SHORT_NAMES = {
    "pick_and_place_simple": "put",
    "look_at_obj_in_light": "examine",
    "pick_clean_then_place_in_recep": "clean",
    "pick_heat_then_place_in_recep": "heat",
    "pick_cool_then_place_in_recep": "cool",
    "pick_two_obj_and_place": "put-two",
}
TASK_TYPES = tuple(SHORT_NAMES)
_BY_SHORT = {short: name for name, short in SHORT_NAMES.items()}
_IN_LIGHT = "look_at_obj_in_light"


@dataclass(frozen=True, slots=True)
class Task:
    """A task: its type, the object, and the receptacle it goes to or the lamp it is looked at under."""

    type: str
    object: str
    target: str

    def pddl_params(self) -> dict[str, str | bool]:
        """ALFRED's `pddl_params` of the task, as its `traj_data.json` has them."""
        in_light = self.type == _IN_LIGHT
        return {
            "mrecep_target": "",
            "object_sliced": False,
            "object_target": self.object,
            "parent_target": "" if in_light else self.target,
            "toggle_target": self.target if in_light else "",
        }


def task_of(game_id: str) -> Task:
    """The task of a game `split/type-Object-None-Target-scene/trial`.

    Raises:
        ValueError: when the id is not of this form.
    """
    parts = game_id.split("/")
    fields = parts[1].split("-") if len(parts) == 3 else []
    if len(fields) != 5 or fields[0] not in TASK_TYPES:
        raise ValueError(f"'{game_id}' is not split/type-Object-None-Target-scene/trial with one of ALFWorld's six types")
    return Task(type=fields[0], object=fields[1], target=fields[3])


def task_types(names: Sequence[str | int] | str | int) -> frozenset[str]:
    """Full names of task types that are given by full name, short name (`put-two`) or ALFWorld's number (1 to 6).

    Raises:
        UserError: for one there is not, or for none at all.
    """
    wanted = [names] if isinstance(names, str | int) else list(names)
    if not wanted:
        raise UserError(f"ALFWorld's option 'types' is empty; leave it out for all six, or choose among {', '.join(_BY_SHORT)}")
    return frozenset(_full_name(name) for name in wanted)


def _full_name(name: str | int) -> str:
    if isinstance(name, int) and not isinstance(name, bool) and 1 <= name <= len(TASK_TYPES):
        return TASK_TYPES[name - 1]
    full = _BY_SHORT.get(str(name), str(name))
    if full not in TASK_TYPES:
        raise UserError(f"ALFWorld has no task type '{name}'{nearest(str(name), (*_BY_SHORT, *TASK_TYPES))}")
    return full
