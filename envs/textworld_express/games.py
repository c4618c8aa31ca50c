"""The eight games, their parameters, and which seeds belong to which fold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentdistill.errors import UserError, nearest

_ON, _ROOMS = (0, 1), (1, 11)
# The simulator's names, with the least and the greatest value it takes.
GAMES: dict[str, dict[str, tuple[int, int]]] = {
    "cookingworld": {
        "numLocations": _ROOMS, "numIngredients": (1, 5), "numDistractorItems": (0, 10), "includeDoors": _ON,
        "limitInventorySize": _ON,
    },
    "twc": {"numLocations": (1, 3), "numItemsToPutAway": (1, 10), "includeDoors": _ON, "limitInventorySize": _ON},
    "coin": {"numLocations": _ROOMS, "numDistractorItems": (0, 10), "includeDoors": _ON, "limitInventorySize": _ON},
    "mapreader": {
        "numLocations": (1, 50), "maxDistanceApart": (1, 8), "maxDistractorItemsPerLocation": (0, 3), "includeDoors": _ON,
        "limitInventorySize": _ON,
    },
    "arithmetic": {},
    "sorting": {},
    "simonsays": {"gameLength": (1, 1000), "numDistractors": (0, 5), "memorization": _ON, "verbose": _ON},
    "peckingorder": {},
}  # fmt: skip
# The simulator's folds: another fold has other objects and recipes, not only other seeds.
FOLDS = {"train": range(1000), "dev": range(10_000, 11_000), "test": range(20_000, 21_000)}
SPLITS = FOLDS | {"valid": FOLDS["dev"]}


def fold_of(seed: int) -> str:
    """The fold of a seed.

    Raises:
        UserError: when it is in none.
    """
    for fold, seeds in FOLDS.items():
        if seed in seeds:
            return fold
    ranges = ", ".join(f"{seeds.start} to {seeds.stop - 1} ({fold})" for fold, seeds in FOLDS.items())
    raise UserError(f"TextWorld-Express has no game with seed {seed}; seeds are {ranges}")


def parameters_of(game: str, given: Mapping[str, Any]) -> str:
    """A game's parameters as the simulator takes them: `numLocations=3,includeDoors=0`.

    Raises:
        UserError: for an unknown game or parameter, or a value outside its range.
    """
    if game not in GAMES:
        raise UserError(f"TextWorld-Express has no game '{game}'{nearest(str(game), GAMES)}")
    for name, value in given.items():
        if name not in GAMES[game]:
            near = nearest(name, GAMES[game]) or "; it has none"
            raise UserError(f"TextWorld-Express's game '{game}' has no parameter '{name}'{near}")
        least, most = GAMES[game][name]
        if not isinstance(value, int) or not least <= value <= most:
            raise UserError(f"TextWorld-Express's parameter '{name}' is {value!r} but must be from {least} to {most}")
    return ",".join(f"{name}={int(given[name])}" for name in sorted(given))
