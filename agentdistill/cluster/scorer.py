"""Scoring by actors: hidden states come back, `d` numbers a token, and the output head once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from agentdistill.cluster.arrays import Array, tensor
from agentdistill.cluster.host import Scored
from agentdistill.cluster.troupe import Troupe
from agentdistill.engines.registry import LanguageModel
from agentdistill.errors import UserError
from agentdistill.policies.base import ScoreRequest, TeacherScores
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import HiddenDistribution
from agentdistill.policies.shared import budget_batches, computed, pass_tokens


class RayScorer:
    """`TeacherScorer` over actors, which gives full distributions.

    Args:
        lm: whose scores these are; its weights do not change.
        troupe: the actors that hold it.
        budget: tokens that one pass computes.
    """

    capabilities = frozenset({"teacher", "distribution"})

    def __init__(self, lm: LanguageModel, troupe: Troupe, budget: int) -> None:
        self.lm, self.name = lm, lm.name
        self._troupe, self._budget = troupe, budget
        self._known: nn.Linear | None = lm.head if isinstance(lm, CausalLM) else None

    def score(self, requests: Sequence[ScoreRequest]) -> list[TeacherScores]:
        """A pass is a question to one actor (see `TeacherScorer`).

        Raises:
            UserError: for a sequence that is too long, and when an actor is lost and cannot be replaced.
        """
        sequences = [list(request.ids) for request in requests]
        if (longest := max(map(len, sequences), default=0)) > self.lm.context:
            raise UserError(
                f"a sequence of {longest} tokens is longer than the {self.lm.context} that scorer '{self.name}' takes; "
                "lower env.max_context (a teacher's privileged prompt needs room of its own)"
            )
        crew = self._troupe.crew
        parts = budget_batches(sequences, self._share(sequences, len(crew)))
        loads = [0] * len(crew)
        tickets = []
        for part in parts:
            place = loads.index(min(loads))
            loads[place] += pass_tokens([sequences[i] for i in part])
            tickets.append(crew.put(place, "score", [requests[i] for i in part]))
        answers: dict[int, TeacherScores] = {}
        for part, scored in zip(parts, crew.all(tickets), strict=True):
            answers |= {i: self._read(each) for i, each in zip(part, scored, strict=True)}
        return [answers[i] for i in range(len(requests))]

    def _share(self, sequences: Sequence[list[int]], actors: int) -> int:
        """Tokens of a pass: what the budget allows, or less, so that every actor has something to do."""
        whole = computed(sequences, self._budget)
        return self._budget if actors == 1 else min(self._budget, max(1, -(-whole // actors)))

    def _read(self, scored: Scored) -> TeacherScores:
        head = self._head
        device = head.weight.device
        logprobs, entropy, hidden = (tensor(each).to(device, copy=True) for each in scored)
        return TeacherScores(logprobs, entropy, HiddenDistribution(hidden, head))

    @property
    def _head(self) -> nn.Linear:
        if self._known is None:
            crew = self._troupe.crew
            weight, bias = crew.all([crew.put(0, "head")])[0]
            self._known = _linear(weight, bias)
        return self._known


def _linear(weight: Array, bias: Array | None) -> nn.Linear:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    head = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    head.weight = nn.Parameter(tensor(weight).to(device, copy=True), requires_grad=False)
    if bias is not None:
        head.bias = nn.Parameter(tensor(bias).to(device, copy=True), requires_grad=False)
    return head
