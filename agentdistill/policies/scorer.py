"""Scoring with a Transformers model: one pass a sequence, logits only at the tokens that are asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from agentdistill.errors import UserError
from agentdistill.policies.base import ScoreRequest, TeacherScores
from agentdistill.policies.model import CausalLM, chunk_rows
from agentdistill.policies.shared import budget_batches, states_at
from agentdistill.signals.logspace import entropy as entropy_of


@dataclass(frozen=True, slots=True)
class HiddenDistribution:
    """Full distributions kept as hidden states `[n, d]`: d numbers a token instead of V."""

    hidden: torch.Tensor
    head: nn.Linear

    @torch.no_grad()
    def logprobs(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """`[len(rows), V]` fp32 log-probabilities."""
        return torch.log_softmax(self.head(self.hidden[rows]).float(), dim=-1)


class TransformersScorer:
    """`TeacherScorer` over a `CausalLM`; it can give full distributions.

    Args:
        lm: the scoring model. Its weights must not change while its answers are in use, unless it is `live`.
        budget: tokens that one pass computes; what its sequences begin alike with counts once.
        live: answers keep a copy of the output head, so that they stay what they were when the weights change.
        passed: takes the number of tokens that a forward pass has read.
    """

    capabilities = frozenset({"teacher", "distribution"})

    def __init__(
        self, lm: CausalLM, *, budget: int = 16_384, live: bool = False, passed: Callable[[int], None] = lambda _: None
    ) -> None:
        self.lm, self.name, self.budget, self.live, self._passed = lm, lm.name, budget, live, passed

    @torch.no_grad()
    def score(self, requests: Sequence[ScoreRequest]) -> list[TeacherScores]:
        """One pass over each request's ids (see `TeacherScorer`)."""
        self.lm.model.train(False)
        sequences = [list(request.ids) for request in requests]
        longest = max(map(len, sequences), default=0)
        if longest > self.lm.context:
            raise UserError(
                f"a sequence of {longest} tokens is longer than the {self.lm.context} that scorer '{self.name}' takes; "
                "lower env.max_context (a teacher's privileged prompt needs room of its own)"
            )
        head = copy.deepcopy(self.lm.head).requires_grad_(False) if self.live else self.lm.head
        answers: dict[int, TeacherScores] = {}
        for batch in budget_batches(sequences, self.budget, self.lm.packed):
            targets = [np.asarray(requests[i].targets, dtype=np.int64) for i in batch]
            states = states_at(self.lm, [sequences[i] for i in batch], [each - 1 for each in targets])
            for i, each, own in zip(batch, targets, torch.split(states, [len(each) for each in targets]), strict=True):
                ids = torch.as_tensor(np.asarray(sequences[i])[each], device=states.device)
                answers[i] = _scores(HiddenDistribution(own.clone(), head), ids)
            self._passed(sum(len(sequences[i]) for i in batch))
        return [answers[i] for i in range(len(requests))]


def _scores(distribution: HiddenDistribution, ids: torch.Tensor) -> TeacherScores:
    logprobs, entropy = [ids.new_empty(0, dtype=torch.float32)], [ids.new_empty(0, dtype=torch.float32)]
    size = chunk_rows(distribution.head)
    for start in range(0, len(ids), size):
        rows = slice(start, start + size)
        chunk = distribution.logprobs(rows)
        logprobs.append(chunk.gather(1, ids[rows, None])[:, 0])
        entropy.append(entropy_of(chunk))
    return TeacherScores(torch.cat(logprobs), torch.cat(entropy), distribution)
