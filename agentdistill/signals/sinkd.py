"""Sinkhorn distance between the tokens of a batch, in its 2-D form: rows are tokens (SinKD, arXiv 2402.17110)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from agentdistill.signals.logspace import Temperature, kl, prepare, scaled, tempered
from agentdistill.signals.registry import DIVERGENCES


@DIVERGENCES.register("sinkd", needs=frozenset({"teacher", "distribution"}))
def sinkhorn(
    student: Tensor, teacher: Tensor, *,
    temperature: Temperature = 2.0, eps: Annotated[float, Field(ge=0.02)] = 0.1, iterations: Annotated[int, Field(ge=1)] = 20,
    rows: Annotated[int, Field(ge=1, le=512)] = 64, fkl: Annotated[float, Field(ge=0)] = 0.0,
) -> Tensor:  # fmt: skip
    """`Σ_j P_ij W_ij + fkl·KL(T_i‖π_i)`, `[n]`, the first term between 0 and 2 for the rows of a doubly stochastic `P`.

    `W_ij = ‖π_i − T_j‖₁` of distributions at `temperature`, `P` the plan that `iterations` Sinkhorn steps make of
    `e^(−W/eps)`; the gradient goes through both. It does not see in which order the rows stand (a student right about
    every token but in another order loses nothing): add the token-wise term with `fkl`. Nor is it 0 where the two agree,
    because the plan always moves a little mass between rows.

    Args:
        eps: entropic regularisation; below 0.02 `e^(−2/eps)` leaves float32.
        rows: tokens in one problem: a call's tokens are cut, in order, into blocks of as many, the last one shorter. The
            loss of a token so depends on its neighbours in the chunk of positions that it is computed in. Time grows with
            `rows · n · V`.
        fkl: factor of the token-wise forward KL at temperature 1.
    """
    student, teacher = prepare(student, teacher)
    ours, theirs = tempered(student, temperature).exp(), tempered(teacher, temperature).exp()
    blocks = range(0, max(1, len(ours)), rows)
    cost = torch.cat([_transport(ours[i : i + rows], theirs[i : i + rows], eps, iterations) for i in blocks])
    return cost + scaled(fkl, kl(teacher, student)) if fkl else cost


def _transport(ours: Tensor, theirs: Tensor, eps: float, iterations: int) -> Tensor:
    """`[m]` cost of each row's share of the plan between two sets of distributions `[m, V]`."""
    cost = torch.cdist(ours, theirs, p=1)
    plan = torch.exp(-cost / eps)
    for _ in range(iterations):
        plan = plan / plan.sum(1, keepdim=True)
        plan = plan / plan.sum(0, keepdim=True)
    return (plan * cost).sum(1)
