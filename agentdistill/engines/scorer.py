"""Scoring with a served model: a whole sequence as the prompt, its log-probs back, one request a sequence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch

from agentdistill.engines.registry import LanguageModel
from agentdistill.engines.wire import Ask, Connection
from agentdistill.errors import UserError
from agentdistill.policies.base import ScoreRequest, TeacherScores
from agentdistill.policies.top import TopDistribution


class ServedScorer:
    """`TeacherScorer` over a `Connection`: log-probs at temperature 1, and the likeliest ids where they are wanted.

    Args:
        lm: whose scores these are.
        connection: where it is served.
        budget: tokens that are asked about at one time; what the answers take in memory is bounded by it.
        top: likeliest ids to ask for.
        width: of the distributions that those are taken for.
    """

    def __init__(self, lm: LanguageModel, connection: Connection, *, budget: int, top: int = 0, width: int = 0) -> None:
        self.lm, self.name, self.top_k = lm, lm.name, top
        self.capabilities = frozenset({"teacher", "topk"} if top else {"teacher"})
        self._connection, self._budget, self._width = connection, budget, width or lm.vocab_size

    def score(self, requests: Sequence[ScoreRequest]) -> list[TeacherScores]:
        """One request a sequence (see `TeacherScorer`).

        Raises:
            UserError: for a sequence that is too long, a score that is missing or not finite, and whatever the other side says.
        """
        longest = self._connection.context - 1  # the other side samples a token behind the prompt, which nobody reads
        for request in requests:
            if len(request.ids) > longest:
                raise UserError(
                    f"a sequence of {len(request.ids)} tokens is more than the {longest} that {self._connection.name} scores; "
                    "lower env.max_context, or start it with a longer context"
                )
        out: list[TeacherScores] = []
        for part in _portions(requests, self._budget):
            # Nothing cached is used: a position whose keys are cached is not computed, and so has no score.
            asks = [Ask(list(request.ids), prompt_top=self.top_k, cached=False) for request in part]
            out += [self._read(r, said.prompt) for r, said in zip(part, self._connection.ask(asks), strict=True)]
        return out

    def _read(self, request: ScoreRequest, rows: Sequence[Mapping[int, float]]) -> TeacherScores:
        if len(rows) != len(request.ids):
            raise UserError(
                f"{self._connection.name} gave log-probs of {len(rows)} positions for a sequence of {len(request.ids)} tokens; "
                "it must return them for every token of the prompt"
            )
        found = []
        for t in request.targets:
            value = rows[t].get(request.ids[t], math.nan)
            if not math.isfinite(value):
                raise UserError(
                    f"{self._connection.name} gave no finite log-prob for token {request.ids[t]} at position {t}; "
                    "its model or vocabulary is another than the experiment's"
                )
            found.append(value)
        scores = TeacherScores(torch.tensor(found, dtype=torch.float32))
        if self.top_k and found:
            tops = [sorted(rows[t].items(), key=lambda pair: -pair[1])[: self.top_k] for t in request.targets]
            ids, values = (torch.tensor([[pair[i] for pair in top] for top in tops]) for i in (0, 1))
            scores.distribution = TopDistribution(ids, values, self._width)
        return scores


def _portions(requests: Sequence[ScoreRequest], budget: int) -> Iterator[list[ScoreRequest]]:
    """Requests in their order, as many at one time as hold `budget` tokens together, and at least one."""
    part: list[ScoreRequest] = []
    held = 0
    for request in requests:
        if part and held + len(request.ids) > budget:
            yield part
            part, held = [], 0
        part.append(request)
        held += len(request.ids)
    if part:
        yield part
