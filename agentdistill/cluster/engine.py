"""The engine of a Ray cluster: the student is played and the teachers score in actors, each of which can be lost."""

from __future__ import annotations

from typing import Any

from agentdistill.cluster.connect import Cluster
from agentdistill.cluster.environments import Places
from agentdistill.cluster.placement import Place, Reservation, places
from agentdistill.cluster.ranks import RankCrew
from agentdistill.cluster.sampler import RaySampler
from agentdistill.cluster.scorer import RayScorer
from agentdistill.cluster.trainer import RankedTrainer
from agentdistill.cluster.troupe import Shipment, Troupe
from agentdistill.config import Experiment
from agentdistill.engines.registry import LanguageModel, Setup
from agentdistill.errors import UserError
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM


class RayEngine:
    """An `Engine` whose models are in actors; its places are reserved, and said, when it is made.

    Raises:
        UserError: when there is no cluster, or no room in it.
    """

    def __init__(self, setup: Setup) -> None:
        section = setup.section
        self._setup, self._cluster = setup, Cluster(section.address)
        self._playing: tuple[object, Troupe] | None = None
        self._shipments: dict[int, tuple[CausalLM, Shipment]] = {}
        self._ranks: RankCrew | None = None
        self._scoring: dict[object, tuple[LanguageModel, Troupe]] = {}
        try:
            wanted = places(section, setup.teachers)
            self._reservation = Reservation(wanted, spread=section.ray.spread, wait=section.ray.wait, say=setup.say)
        except BaseException:
            self._cluster.close()
            raise
        self._environments = Places(self._places("environment"), self._reservation, section.ray.wait, setup.say)
        for line in self._reservation.lines():
            setup.say(line)

    def sampler(self, lm: LanguageModel, *, cache: bool = True) -> RaySampler | TransformersSampler:
        """See `Engine`. Whoever wants nothing kept releases it between calls."""
        if not isinstance(lm, CausalLM):
            return RaySampler(lm.name, self._scorers(lm), None)
        if not self._setup.section.ray.samplers:
            return TransformersSampler(lm)
        kind, (_, shipment) = _kind(lm), self._shipments.setdefault(id(lm), (lm, Shipment(lm)))
        if self._playing is None or self._playing[0] != kind:
            if self._playing is not None:
                self._playing[1].crew.close()
            self._playing = kind, Troupe(lm, self._places("sampler"), self._reservation, self._setup, shipment)
        return RaySampler(lm.name, self._playing[1], shipment)

    def scorer(self, lm: LanguageModel, *, width: int = 0) -> RayScorer:
        """See `Engine`; it gives whole distributions."""
        return RayScorer(lm, self._scorers(lm), self._setup.budget)

    def worker(self, packed: bytes) -> Any:
        """See `HostingEngine`."""
        return self._environments.worker(packed)

    def trainer(self, student: CausalLM, config: Experiment) -> RankedTrainer:
        """See `HostingEngine`; the ranks stay until the engine is closed."""
        section = self._setup.section
        if self._ranks is None:
            self._ranks = RankCrew(
                self._places("trainer"), self._reservation, wait=section.ray.wait, timeout=config.train.rank_timeout,
                patience=section.timeout,
            )  # fmt: skip
        return RankedTrainer(self._ranks, student, config)

    def close(self) -> None:
        """See `Engine`."""
        for _, shipment in self._shipments.values():
            shipment.close()
        if self._ranks is not None:
            self._ranks.close()
        troupes = [troupe for _, troupe in self._scoring.values()]
        for troupe in troupes if self._playing is None else [*troupes, self._playing[1]]:
            troupe.crew.close()
        self._reservation.close()
        self._cluster.close()

    def _scorers(self, lm: LanguageModel) -> Troupe:
        """The actors of a teacher: the next that have no model yet, when it is asked for first."""
        key: object = id(lm) if isinstance(lm, CausalLM) else lm.name
        if key not in self._scoring:
            each = self._setup.section.ray.teachers
            own = self._places("teacher")[each * len(self._scoring) :][:each]
            if not own:
                raise UserError(f"no actor was reserved for teacher '{lm.name}'; this engine was opened for fewer teachers")
            shipment = Shipment(lm) if isinstance(lm, CausalLM) else None
            self._scoring[key] = lm, Troupe(lm, own, self._reservation, self._setup, shipment)
        return self._scoring[key][1]

    def _places(self, role: str) -> list[Place]:
        return [place for place in self._reservation.places if place.role == role]


def _kind(lm: CausalLM) -> object:
    """What two models have in common whose actors can take each other's weights."""
    shapes = tuple((name, tuple(tensor.shape)) for name, tensor in lm.model.named_parameters())
    return type(lm), type(lm.model), lm.model.config.to_json_string(), shapes


def open_ray(setup: Setup) -> RayEngine:
    """See `EngineSpec`."""
    return RayEngine(setup)
