"""A server over HTTP: it plays the student, whose weights are sent there after each update, or it scores for a teacher."""

from __future__ import annotations

from agentdistill.engines.http import ServerConnection
from agentdistill.engines.registry import LanguageModel, Setup
from agentdistill.engines.sampler import ServedSampler
from agentdistill.engines.scorer import ServedScorer
from agentdistill.engines.vllm import dtype_of
from agentdistill.engines.weights import WeightSync, require_same_model
from agentdistill.engines.wire import Ask
from agentdistill.errors import UserError
from agentdistill.policies.model import CausalLM


class ServerEngine:
    """An `Engine` that asks a server: one connection a model, and a student's weights sent whenever they have changed."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._models: dict[int, tuple[LanguageModel, ServerConnection]] = {}
        self._syncs: dict[int, WeightSync] = {}
        ServerConnection(setup.section.url, "", setup.section.timeout).close()  # refuses an address where nobody answers

    def sampler(self, lm: LanguageModel, *, cache: bool = True) -> ServedSampler:
        """See `Engine`."""
        connection = self._connection(lm)
        if not isinstance(lm, CausalLM):
            return ServedSampler(lm, connection, cache=cache)
        sync = self._sync(lm, connection)
        return ServedSampler(lm, connection, sync=sync, cache=cache, budget=self._setup.budget)

    def scorer(self, lm: LanguageModel, *, width: int = 0) -> ServedScorer:
        """See `Engine`.

        Raises:
            UserError: when the server takes shorter sequences than are played, or gives no scores of a prompt.
        """
        connection, setup = self._connection(lm), self._setup
        longest = min(setup.context, lm.context)
        if connection.context <= longest:
            raise UserError(
                f"{connection.name} scores {connection.context - 1} tokens at most, and contexts may reach {longest}; start it "
                f"with --max-model-len {longest + 1}, or set env.max_context to {connection.context - 1}"
            )
        connection.ask([Ask([0, 0], prompt_top=setup.top, cached=False)])  # refuses now what it would refuse after a rollout
        return ServedScorer(lm, connection, budget=setup.budget, top=setup.top, width=width)

    def close(self) -> None:
        """See `Engine`."""
        for _, connection in self._models.values():
            connection.close()
        for sync in self._syncs.values():
            sync.close()

    def _connection(self, lm: LanguageModel) -> ServerConnection:
        if id(lm) not in self._models:
            section = self._setup.section
            # A student's weights are sent, so what the server began with need not be its own.
            expected = "" if isinstance(lm, CausalLM) else lm.name
            self._models[id(lm)] = lm, ServerConnection(section.url, expected, section.timeout)
        return self._models[id(lm)][1]

    def _sync(self, lm: CausalLM, connection: ServerConnection) -> WeightSync:
        if id(lm) not in self._syncs:
            section = self._setup.section
            sync = self._syncs[id(lm)] = WeightSync(lm, dtype_of(section.dtype), section.exchange)
            sync.to(connection)
            sync()
            require_same_model(lm, connection)
        return self._syncs[id(lm)]


def open_server(setup: Setup) -> ServerEngine:
    """See `EngineSpec`."""
    return ServerEngine(setup)
