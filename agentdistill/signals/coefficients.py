"""Coefficients that change with the iteration, for `kd_coef` and `rl_coef`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agentdistill.signals.registry import COEFFICIENTS

Factor = Annotated[float, Field(ge=0)]


def check_ceiling(*, floor: float, ceiling: float | None, **_: float) -> None:
    """Refuse bounds that are the wrong way round.

    Raises:
        ValueError: then.
    """
    if ceiling is not None and ceiling < floor:
        raise ValueError(f"ceiling {ceiling:g} is below floor {floor:g}")


@COEFFICIENTS.register("linear", check=check_ceiling)
def linear(iteration: int, *, start: Factor, by: float, floor: Factor = 0.0, ceiling: Factor | None = None) -> float:
    """`min(max(start + by·n, floor), ceiling)` at iteration n, from 1.

    KDRL's annealing (arXiv 2506.02208) is `start: 5e-3, by: -5e-5, floor: 1e-3`, which reaches its floor at n = 80.
    """
    value = max(start + by * iteration, floor)
    return value if ceiling is None else min(value, ceiling)
