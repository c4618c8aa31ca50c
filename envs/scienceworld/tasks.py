"""The 30 tasks, their variations, and which of them belong to which split."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence

from agentdistill.errors import UserError, nearest

# Tasks in the order of the paper (Wang et al., arXiv 2203.07540), with how many variations each has.
VARIATIONS = {
    "boil": 30,
    "melt": 30,
    "freeze": 30,
    "change-the-state-of-matter-of": 30,
    "use-thermometer": 540,
    "measure-melting-point-known-substance": 436,
    "measure-melting-point-unknown-substance": 300,
    "power-component": 20,
    "power-component-renewable-vs-nonrenewable-energy": 20,
    "test-conductivity": 900,
    "test-conductivity-of-unknown-substances": 600,
    "find-living-thing": 300,
    "find-non-living-thing": 300,
    "find-plant": 300,
    "find-animal": 300,
    "grow-plant": 126,
    "grow-fruit": 126,
    "chemistry-mix": 32,
    "chemistry-mix-paint-secondary-color": 36,
    "chemistry-mix-paint-tertiary-color": 36,
    "lifespan-longest-lived": 125,
    "lifespan-shortest-lived": 125,
    "lifespan-longest-lived-then-shortest-lived": 125,
    "identify-life-stages-1": 14,
    "identify-life-stages-2": 10,
    "inclined-plane-determine-angle": 168,
    "inclined-plane-friction-named-surfaces": 1386,
    "inclined-plane-friction-unnamed-surfaces": 162,
    "mendelian-genetics-known-plant": 120,
    "mendelian-genetics-unknown-plant": 480,
}
TASKS = tuple(VARIATIONS)
# The 13 that TCOD (arXiv 2604.24005) keeps for testing; it trains on the other 17.
TCOD_TEST = frozenset({
    "freeze", "measure-melting-point-unknown-substance", "power-component-renewable-vs-nonrenewable-energy",
    "test-conductivity-of-unknown-substances", "find-non-living-thing", "find-animal", "grow-fruit",
    "chemistry-mix-paint-tertiary-color", "lifespan-longest-lived", "lifespan-longest-lived-then-shortest-lived",
    "identify-life-stages-1", "inclined-plane-friction-unnamed-surfaces", "mendelian-genetics-unknown-plant",
})  # fmt: skip
_FIRST = (0, *itertools.accumulate(VARIATIONS.values()))  # seed of each task's first variation


def _train(task: str) -> range:
    return range(VARIATIONS[task] // 4 * 2)


def _valid(task: str) -> range:
    quarter = VARIATIONS[task] // 4
    return range(quarter * 2, quarter * 3)


def _test(task: str) -> range:
    return range(VARIATIONS[task] // 4 * 3, VARIATIONS[task])


def _tcod_train(task: str) -> range:
    return range(0 if task in TCOD_TEST else VARIATIONS[task] // 2)


def _tcod_test(task: str) -> range:
    return range(VARIATIONS[task] // 2 if task in TCOD_TEST else 0)


# The simulator's own three, of half, a quarter and the rest of a task's variations, and TCOD's two, of the first half.
SPLITS: dict[str, Callable[[str], range]] = {
    "train": _train, "valid": _valid, "dev": _valid, "test": _test, "tcod_train": _tcod_train, "tcod_test": _tcod_test,
}  # fmt: skip


def seed_of(task: str, variation: int) -> int:
    """Number of a variation among all 7,207, those of the first task first."""
    return _FIRST[TASKS.index(task)] + variation


def task_of(seed: int) -> tuple[str, int]:
    """The task and the variation with this number.

    Raises:
        UserError: when there is none.
    """
    if not 0 <= seed < _FIRST[-1]:
        raise UserError(f"ScienceWorld has no variation with seed {seed}; seeds go from 0 to {_FIRST[-1] - 1}")
    index = bisect.bisect_right(_FIRST, seed) - 1
    return TASKS[index], seed - _FIRST[index]


def seeds(split: str, tasks: Sequence[str]) -> list[int]:
    """Seeds of a split, a variation of every task in turn, so that any first few are of many tasks.

    Raises:
        UserError: when there is no such split, or none of the tasks is in it.
    """
    if split not in SPLITS:
        raise UserError(f"ScienceWorld has no split '{split}'{nearest(split, SPLITS)}")
    pairs = ((variation, task) for task in tasks for variation in SPLITS[split](task))
    found = [seed_of(task, variation) for variation, task in sorted(pairs, key=lambda pair: pair[0])]
    if not found:
        raise UserError(f"ScienceWorld's split '{split}' has no variation of {', '.join(tasks)}; choose other 'tasks'")
    return found


def chosen(tasks: Sequence[str] | str | None) -> tuple[str, ...]:
    """The tasks of these names in the order of `TASKS`; all for None.

    Raises:
        UserError: for a name that there is not, or for none at all.
    """
    names = TASKS if tasks is None else (tasks,) if isinstance(tasks, str) else tuple(tasks)
    if not names:
        raise UserError("ScienceWorld's option 'tasks' is empty; leave it out for all 30, or name some")
    for name in names:
        if name not in VARIATIONS:
            raise UserError(f"ScienceWorld has no task '{name}'{nearest(str(name), TASKS)}")
    return tuple(task for task in TASKS if task in names)
