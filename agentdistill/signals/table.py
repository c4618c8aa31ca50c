"""The token table: a batch of trajectories as equal-length columns, a row a token. Signals see nothing else.

Rows are all tokens, prompts and observations included, so that a method can tell where steps begin; values on rows that
the student did not sample are never read: every reduction selects its rows first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentdistill.errors import UserError, nearest
from agentdistill.trajectory import BoolArray, FloatArray, IntArray

REQUIRED = ("trajectory", "turn", "step", "is_action")
PROVIDERS = {
    "logprob": "the trainer's recomputation of the student's log-probabilities",
    "teacher": "a teacher that scores the student's tokens",
    "reference": "a reference model that scores the student's tokens",
    "entropy": "a scorer that returns entropies",
    "rkl": "a teacher that returns its full distribution",
    "fkl": "a teacher that returns its full distribution",
    "rkl_topk": "a teacher that returns its full distribution",
    "recomputed": "the trainer's recomputation of the student's log-probabilities",
    "behaviour": "the sampler's log-probabilities, at its own temperature",
    "reward": "the environment's rewards",
    "group": "rollouts of one task that share a group",
    "depth_ok": "the depth schedule",
}
"""Known optional columns and what fills them."""

_DTYPES: dict[str, type[np.generic]] = {
    "trajectory": np.int64,
    "turn": np.int64,
    "step": np.int64,
    "group": np.int64,
    "is_action": np.bool_,
    "depth_ok": np.bool_,
}


@dataclass(frozen=True, slots=True)
class Steps:
    """The (trajectory, step) pairs of a table in order, and where each token belongs.

    Attributes:
        trajectory: `[n_steps]` trajectory of each step.
        step: `[n_steps]` its id within the trajectory.
        size: `[n_steps]` its number of student tokens.
        row: `[n]` index of each token's step into the arrays above, -1 off student tokens.
    """

    trajectory: IntArray
    step: IntArray
    size: IntArray
    row: IntArray


class Later(Protocol):
    """Columns that take work to fill, and are filled when one of them is first read."""

    @property
    def names(self) -> Sequence[str]:
        """Which they are."""

    def compute(self) -> Mapping[str, ArrayLike]:
        """All of them, `[n]` each."""


class TokenTable:
    """Read-only columns of `n` rows.

    Columns: `trajectory` (int, 0 … N-1, rows of one trajectory contiguous and in order), `turn` (int), `step` (int, -1
    off student tokens), `is_action` (bool: the student sampled it); optional `logprob` (log π_old in nats, recomputed
    by the trainer at temperature 1), `teacher` (log T of the sampled token), `reference` (log R of it), `entropy`,
    `rkl` = KL(π‖T) and `fkl` = KL(T‖π) over the full vocabulary at each position, `reward` (the trajectory's total, on
    every row), `group` (int, on @@
        UserError: for a missing required column, a wrong length or dtype, or trajectories out of order.
    """

    def __init__(self, columns: Mapping[str, ArrayLike], later: Later | None = None) -> None:
        for name in REQUIRED:
            if name not in columns:
                raise UserError(f"the token table has no column '{name}', which every token table needs")
        n = len(np.atleast_1d(np.asarray(columns["trajectory"])))
        self._columns = {name: _column(name, values, n) for name, values in columns.items()}
        self._later = later
        jumps = np.diff(self.trajectory, prepend=-1)
        if n and (jumps[0] != 1 or ((jumps != 0) & (jumps != 1)).any()):
            raise UserError("column 'trajectory' must count 0, 1, 2 … with the rows of one trajectory next to each other")
        stray = np.flatnonzero(~self.is_action & (self.step != -1))
        if len(stray):
            raise UserError(
                f"column 'step' must be -1 off student tokens, but is {self.step[stray[0]]} at {self._at(stray[0])}"
            )

    def __len__(self) -> int:
        return len(self._columns["trajectory"])

    def __contains__(self, name: object) -> bool:
        return name in self._columns or (self._later is not None and name in self._later.names)

    @property
    def pending(self) -> bool:
        """Whether there are columns that nobody has read yet."""
        return self._later is not None

    def settle(self, values: Mapping[str, ArrayLike] | None = None) -> None:
        """Fill the columns that are pending, if any are: with these values, or by computing them."""
        if self._later is not None:
            values = self._later.compute() if values is None else values
            self._columns |= {name: _column(name, values[name], len(self)) for name in self._later.names}
            self._later = None

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The column `name`, read-only.

        Raises:
            UserError: when it is missing; the sentence says what would provide it.
        """
        if self._later is not None and name in self._later.names:
            self.settle()
        if name not in self._columns:
            provider = PROVIDERS.get(name)
            hint = f"; it comes from {provider}" if provider else nearest(name, self._columns)
            raise UserError(f"the token table has no column '{name}'{hint}")
        return self._columns[name]

    @property
    def names(self) -> list[str]:
        """The columns there are."""
        return [*self._columns, *(self._later.names if self._later else ())]

    @property
    def trajectory(self) -> IntArray:
        """`[n]` trajectory of each row."""
        return self._columns["trajectory"]

    @property
    def turn(self) -> IntArray:
        """`[n]` turn of each row."""
        return self._columns["turn"]

    @property
    def step(self) -> IntArray:
        """`[n]` step of each row, -1 off student tokens."""
        return self._columns["step"]

    @property
    def is_action(self) -> BoolArray:
        """`[n]` whether the student sampled the token."""
        return self._columns["is_action"]

    @property
    def mask(self) -> BoolArray:
        """`[n]` which tokens carry loss: student tokens inside the depth window."""
        depth: BoolArray | None = self._columns.get("depth_ok")
        return self.is_action if depth is None else self.is_action & depth

    @property
    def n_trajectories(self) -> int:
        """How many trajectories there are."""
        return int(self.trajectory[-1]) + 1 if len(self) else 0

    def with_column(self, name: str, values: ArrayLike) -> TokenTable:
        """A new table with one column added or replaced."""
        self.settle()
        return TokenTable({**self._columns, name: values})

    def check_finite(self, name: str) -> None:
        """Make sure that a column is finite on every student token.

        Raises:
            UserError: naming the first row that is not, with its trajectory and turn.
        """
        bad = np.flatnonzero(self.is_action & ~np.isfinite(self[name]))
        if len(bad):
            source = f"; it comes from {PROVIDERS[name]}" if name in PROVIDERS else ""
            raise UserError(f"column '{name}' is {self[name][bad[0]]} at {self._at(bad[0])}, a student token{source}")

    def on_actions(self, name: str) -> FloatArray:
        """A column, checked with `check_finite`, with 0 on every row that is not a student token."""
        self.check_finite(name)
        return np.where(self.is_action, self[name], 0.0)

    def sum_by_trajectory(self, values: ArrayLike, mask: BoolArray | None = None) -> FloatArray:
        """`[N]` sums of `values` over the rows of `mask` (student tokens by default) in each trajectory."""
        kept = np.where(self.is_action if mask is None else mask, values, 0.0)
        return np.bincount(self.trajectory, weights=kept, minlength=self.n_trajectories).astype(np.float64)

    def by_trajectory(self, name: str) -> NDArray[Any]:
        """`[N]` the value of a column that is constant in each trajectory, such as `reward`.

        Raises:
            UserError: when it is not constant or not finite.
        """
        column = self[name]
        first = np.flatnonzero(np.diff(self.trajectory, prepend=-1))
        bad = np.flatnonzero(~np.isfinite(column) | (column != column[first][self.trajectory]))
        if len(bad):
            raise UserError(
                f"column '{name}' must hold one finite value for a whole trajectory, "
                f"but holds {column[bad[0]]} at {self._at(bad[0])}"
            )
        return column[first]

    @cached_property
    def steps(self) -> Steps:
        """The steps of the table.

        Raises:
            UserError: when a student token has no step id.
        """
        missing = np.flatnonzero(self.is_action & (self.step < 0))
        if len(missing):
            raise UserError(f"the student token at {self._at(missing[0])} has no step id (step is {self.step[missing[0]]})")
        stride = int(self.step.max(initial=0)) + 1
        key = (self.trajectory * stride + self.step)[self.is_action]  # one number for each pair: sorts much faster
        unique, inverse, size = np.unique(key, return_inverse=True, return_counts=True)
        row = np.full(len(self), -1, dtype=np.int64)
        row[self.is_action] = inverse
        return Steps(unique // stride, unique % stride, size.astype(np.int64), row)

    def mean_by_step(self, values: ArrayLike) -> FloatArray:
        """`[n_steps]` mean of `values` over the student tokens of each (trajectory, step), in the order of `steps`."""
        steps = self.steps
        chosen = np.asarray(values, dtype=np.float64)[self.is_action]
        return np.bincount(steps.row[self.is_action], weights=chosen, minlength=len(steps.size)) / steps.size

    def spread_steps(self, per_step: ArrayLike) -> FloatArray:
        """`[n]` each student token's entry of a `[n_steps]` array, 0 on other rows."""
        out = np.zeros(len(self))
        out[self.is_action] = np.asarray(per_step, dtype=np.float64)[self.steps.row[self.is_action]]
        return out

    def mean_by_index(self, index: Literal["turn", "step"], values: ArrayLike) -> tuple[FloatArray, IntArray]:
        """Mean over all student tokens of turn (or step) 0, 1, 2 … of the batch, and how many tokens each mean covers.

        A turn that no student token belongs to has mean NaN and count 0.
        """
        key = (self.turn if index == "turn" else self.step)[self.is_action]
        chosen = np.asarray(values, dtype=np.float64)[self.is_action]
        count = np.bincount(key)
        total = np.bincount(key, weights=chosen)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan), count.astype(np.int64)

    def _at(self, row: int | np.integer[Any]) -> str:
        return f"row {row} (trajectory {self.trajectory[row]}, turn {self.turn[row]})"


def _column(name: str, values: ArrayLike, n: int) -> NDArray[Any]:
    """`values` as a read-only 1-D copy of the column's dtype and of length `n`."""
    raw = np.asarray(values)
    if raw.ndim != 1 or len(raw) != n:
        raise UserError(f"column '{name}' has shape {raw.shape}, but the token table has {n} rows")
    dtype = _DTYPES.get(name, np.float64)
    try:
        column: NDArray[Any] = raw.astype(dtype)
    except (TypeError, ValueError) as error:
        raise UserError(f"column '{name}' must hold {np.dtype(dtype).name}, but holds {raw.dtype}") from error
    if dtype is not np.float64 and not np.array_equal(column, raw):
        raise UserError(f"column '{name}' must hold {np.dtype(dtype).name}, but holds other values of {raw.dtype}")
    column.setflags(write=False)
    return column
