"""Stored trajectories as the token table that methods see, as far as stored numbers go: no model is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import TokenStream, Trajectory


def token_rows(index: int, trajectory: Trajectory, stream: TokenStream) -> dict[str, Any]:
    """Columns of one trajectory's tokens, one value a token of its stream; `logprobs_t1` are the sampler's at temperature 1.

    Args:
        index: the trajectory's place in its batch.
    """
    n = len(stream.ids)
    students = [k for k, turn in enumerate(trajectory.turns) if turn.author == "student"]
    return {
        "trajectory": np.full(n, index), "turn": stream.turn, "step": stream.step, "is_action": stream.is_action,
        "own": stream.is_action & np.isin(stream.turn, students), "logprobs_t1": stream.logprobs_t1,
        "behaviour": stream.logprobs,
        "reward": np.full(n, trajectory.reward), "group": np.full(n, trajectory.group),
    }  # fmt: skip


def stored_table(trajectories: Sequence[Trajectory], scorers: Mapping[str, str]) -> TokenTable:
    """The token table of what is stored. `logprob` is the sampler's, at temperature 1.

    Args:
        trajectories: each with tokens of the student.
        scorers: whose stored scores fill a column, such as `teacher`.

    Raises:
        UserError: for a trajectory without scores by one of them, or with another number of them than of student tokens.
    """
    rows = [token_rows(index, each, each.stream()) for index, each in enumerate(trajectories)]
    if not rows:
        flags = {name: np.empty(0, dtype=bool) for name in ("is_action", "own")}
        places = {name: np.empty(0, dtype=np.int64) for name in ("trajectory", "turn", "step", "group")}
        numbers = {name: np.empty(0) for name in ("logprob", "sampler", "recomputed", "behaviour", "reward", *scorers)}
        return TokenTable({**places, **flags, **numbers})
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    columns["sampler"] = columns["logprob"] = columns["recomputed"] = columns.pop("logprobs_t1")
    for name, scorer in scorers.items():
        column = np.full(len(columns["trajectory"]), np.nan)
        column[columns["is_action"]] = np.concatenate([each.scores_by(scorer).logprobs for each in trajectories])
        columns[name] = column
    return TokenTable(columns)
