"""The engine of one process: Transformers models on a GPU when there is one, else on the CPU."""

from __future__ import annotations

from agentdistill.engines.registry import LanguageModel, Setup
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer


class LocalEngine:
    """An `Engine` whose models are all in this process."""

    def __init__(self, setup: Setup) -> None:
        self._budget = setup.budget

    def sampler(self, lm: LanguageModel, *, cache: bool = True) -> TransformersSampler:
        """See `Engine`. Whoever wants nothing kept releases it between calls."""
        assert isinstance(lm, CausalLM)
        return TransformersSampler(lm)

    def scorer(self, lm: LanguageModel, *, width: int = 0) -> TransformersScorer:
        """See `Engine`; it gives whole distributions."""
        assert isinstance(lm, CausalLM)
        return TransformersScorer(lm, budget=self._budget)

    def close(self) -> None:
        """Nothing was started."""


def open_local(setup: Setup) -> LocalEngine:
    """See `EngineSpec`."""
    return LocalEngine(setup)
