"""Distributions of which the likeliest ids are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class TopDistribution:
    """Distributions of which the likeliest ids are known: those as they were, and what is left spread evenly over the others.

    So top-k and tail mass are the scorer's own; nothing that reads more than those may be given it.

    Attributes:
        ids, values: `[n, k]` ids and their log-probs.
        width: of the distributions.
    """

    ids: torch.Tensor
    values: torch.Tensor
    width: int

    def logprobs(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """`[len(rows), width]` fp32 (see `Distribution`)."""
        ids, values = self.ids[rows], self.values[rows].double()
        width = max(self.width, int(self.ids.max()) + 1)
        rest = torch.log1p(-values.exp().sum(-1, keepdim=True).clamp(max=1.0)) - math.log(max(1, width - ids.shape[1]))
        full = rest.expand(-1, width).scatter(-1, ids, values).float()
        return full if width == self.width else torch.log_softmax(full[:, : self.width], dim=-1)
