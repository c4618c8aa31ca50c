"""One line of `metrics.jsonl` as numbers by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_KEYS = ("kind", "label", "role")
"""What is part of a number's name instead of a number."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line, and the wall times that belong to it.

    Attributes:
        line: its place in `metrics.jsonl`, from 0: the one count that only grows.
        group: what its names begin with: `iteration`, `eval/before`, `sft/student`.
        axis: the name of the number that it is drawn against: `iteration` or `step`.
        at: that number.
        values: by name, such as `iteration/kl` or `iteration/kl_by_turn/0`; exactly as in the file. What is null there is
            left out, and so is text.
    """

    line: int
    group: str
    axis: str
    at: int
    values: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, line: int, record: Mapping[str, Any], timing: Mapping[str, Any] | None = None) -> Entry:
        """The entry of a line.

        Args:
            timing: the line of `timings.jsonl` of the same iteration; its numbers stand under `timing/`.
        """
        group = "/".join(str(record[key]) for key in _KEYS if key in record)
        axis = "iteration" if "iteration" in record else "step"
        values = dict(_flat(group, {key: value for key, value in record.items() if key not in _KEYS}))
        if timing is not None:
            values |= _flat("timing", {key: value for key, value in timing.items() if key != "iteration"})
        return cls(line, group, axis, int(record.get(axis, line)), values)


def _flat(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(f"{name}/{key}", each)
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _flat(f"{name}/{place}", each)
    elif isinstance(value, int | float):
        yield name, value
