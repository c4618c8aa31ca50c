"""Who gets which part of the cluster: counted, held against what there is, and reserved all at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentdistill.cluster.connect import Cluster, Node, ray
from agentdistill.engines.registry import judge, player
from agentdistill.engines.section import EngineSection
from agentdistill.errors import UserError
from agentdistill.faults import described

_KIND = "ray"
_LOOK = 1.0  # seconds between two looks at the nodes


@dataclass(frozen=True, slots=True)
class Place:
    """An actor's place: its role, its number among those of the role, and CPUs and GPUs."""

    role: str
    number: int
    cpus: float
    gpus: float = 0.0

    @property
    def name(self) -> str:
        """As the log has it."""
        return f"{self.role} {self.number}"

    @property
    def bundle(self) -> dict[str, float]:
        """As Ray has it."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


def places(section: EngineSection, teachers: int) -> list[Place]:
    """What an experiment asks of the cluster.

    Args:
        teachers: models that are scored with, each by so many actors as the section says.
    """
    sizes, plays, scores = section.ray, player(section).name == _KIND, judge(section).name == _KIND
    samplers = sizes.samplers if plays else 0
    scoring = sizes.teachers * teachers if scores else 0
    return [
        *(Place("sampler", i, sizes.cpus_per_sampler, sizes.gpus_per_sampler) for i in range(samplers)),
        *(Place("teacher", i, sizes.cpus_per_teacher, sizes.gpus_per_teacher) for i in range(scoring)),
        *(Place("trainer", i, sizes.cpus_per_trainer, sizes.gpus_per_trainer) for i in range(sizes.trainers)),
        *(Place("environment", i, sizes.cpus_per_environment) for i in range(sizes.environments)),
    ]


def homeless(wanted: Sequence[Place], nodes: Sequence[Node]) -> list[Place]:
    """Places that no node has room for, when the largest are put first, each where it leaves the least over."""
    free = [(float(node.resources.get("GPU", 0)), float(node.resources.get("CPU", 0))) for node in nodes]
    without: list[Place] = []
    for place in sorted(wanted, key=lambda each: (-each.gpus, -each.cpus)):
        fits = [i for i, (gpus, cpus) in enumerate(free) if gpus >= place.gpus and cpus >= place.cpus]
        if not fits:
            without.append(place)
            continue
        best = min(fits, key=lambda i: free[i])
        free[best] = (free[best][0] - place.gpus, free[best][1] - place.cpus)
    return without


def shortage(wanted: Sequence[Place], nodes: Sequence[Node]) -> str:
    """What is short, in a sentence; empty where every place finds a node."""
    if not (without := homeless(wanted, nodes)):
        return ""
    lacking = Counter((place.role, _amount(place.cpus, place.gpus)) for place in without)
    all_of = Counter(place.role for place in wanted)
    said = ", ".join(f"{n} of {all_of[role]} {role}s, of {amount} each" for (role, amount), n in lacking.items())
    there = Counter(_amount(node.resources.get("CPU", 0), node.resources.get("GPU", 0)) for node in nodes)
    have = ", ".join(f"{n} × {amount}" for amount, n in there.items()) or "none"
    return f"the Ray cluster has no room for {said} (its nodes: {have}); add nodes, or lower engine.ray"


def _amount(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")


class Reservation:
    """Every place of a run, in one placement group: all of them or none.

    Ray gives the places of a node that is gone new ones elsewhere, as soon as there is room.

    Args:
        spread: over as many nodes as there are; else on few.
        wait: seconds that nodes, and room on them, are waited for.
        say: takes a line where that is so.

    Raises:
        UserError: when there is no room in time, naming what is short.
    """

    def __init__(
        self, wanted: Sequence[Place], *, spread: bool, wait: float, say: Callable[[str], None] = lambda _: None
    ) -> None:
        from ray.util.placement_group import placement_group

        self.places, self._names = list(wanted), dict[str, str]()
        if not wanted:
            raise UserError(
                "engine.ray gives no role an actor; set samplers, teachers, environments or trainers, or drop engine.kind"
            )
        until = time.monotonic() + wait
        if short := self.short():
            say(f"waiting for nodes, {wait:g} s at most: {short}")
        while short := self.short():
            if time.monotonic() > until:
                raise UserError(short)
            time.sleep(min(_LOOK, wait))
        self._group: Any = placement_group([place.bundle for place in wanted], strategy="SPREAD" if spread else "PACK")
        if not self._group.wait(max(until - time.monotonic(), _LOOK)):
            self.close()
            raise UserError(
                f"the Ray cluster had no room for {len(wanted)} actors within {wait:g} s (engine.ray.wait), though it is large "
                "enough; `ray status` shows who has it"
            )

    def options(self, place: Place) -> dict[str, Any]:
        """Options of an actor that is to be at a place."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=self.places.index(place))
        return {"num_cpus": place.cpus, "num_gpus": place.gpus, "scheduling_strategy": strategy}

    def nodes(self) -> list[Node]:
        """The nodes that are alive."""
        nodes = Cluster.nodes()
        self._names |= {node.id: node.name for node in nodes}
        return nodes

    def called(self, node: str) -> str:
        """A node by its id, be it alive or gone, as the log has it."""
        if node not in self._names:
            self.nodes()
        return self._names.get(node, node[:6])

    def short(self) -> str:
        """What of it the cluster has no room for as it is now; see `shortage`."""
        return shortage(self.places, self.nodes())

    def missing(self, who: str, seconds: float, error: Exception | None = None) -> UserError:
        """What is to be said of an actor that is not there: what is short, else how its last attempt ended, where it did."""
        reason = self.short() or (described(error) if error is not None else "`ray status` shows who has its resources")
        return UserError(f"{who} was not there within {seconds:g} s (engine.ray.wait): {reason}")

    def lines(self) -> list[str]:
        """Who is where, a line a node."""
        where = self._where()
        return [
            f"placement: {node.name}: "
            + ", ".join(place.name for i, place in enumerate(self.places) if where.get(i) == node.id)
            for node in self.nodes()
            if node.id in where.values()
        ]

    def close(self) -> None:
        """Give everything back."""
        from ray.util.placement_group import remove_placement_group

        if ray.is_initialized():
            remove_placement_group(self._group)

    def _where(self) -> Mapping[int, str]:
        from ray.util.placement_group import placement_group_table

        table: Mapping[int, str] = placement_group_table(self._group).get("bundles_to_node_id", {})
        return table
