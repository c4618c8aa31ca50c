"""Who does what: one process, trainer ranks, or the actors of a Ray cluster."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from agentdistill.config import Experiment
from agentdistill.engines.registry import judge, player
from agentdistill.errors import UserError

_RAY = "ray"
MOST = 1024
"""Ranks that a plan is made for at most."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How an experiment's work is shared out.

    Attributes:
        ranks: that train, each with a shard of the student; 1: the process that runs the loop trains, unsharded.
        apart: whether ranks are actors, and not the process that runs the loop and others like it.
        samplers, scorers, environments: actors that play, that score (of each teacher), and that hold environments.
        together: whether all share one machine.
        gpus: of an actor, by its role, as the experiment has it.
    """

    ranks: int = 1
    apart: bool = False
    samplers: int = 0
    scorers: int = 0
    environments: int = 0
    together: bool = False
    gpus: tuple[tuple[str, float], ...] = ()

    @property
    def ranked(self) -> bool:
        """Whether the student is sharded."""
        return self.apart or self.ranks > 1

    @property
    def by_ray(self) -> bool:
        """Whether there are actors."""
        return self.apart or self.samplers + self.scorers + self.environments > 0

    def with_ranks(self, ranks: int) -> Layout:
        """The same with another number of ranks."""
        return dataclasses.replace(self, ranks=ranks)


def layout_of(config: Experiment, ranks: int | None = None) -> Layout:
    """Who does what in an experiment.

    Args:
        ranks: that `torchrun` is to start; None: as few as hold it.

    Raises:
        UserError: for a number of ranks that cannot be, or where the experiment has trainers of its own.
    """
    if ranks is not None and not 1 <= ranks <= MOST:
        raise UserError(f"a plan is for 1 to {MOST} trainer ranks, not {ranks}")
    sizes, playing = config.engine.ray, player(config.engine)
    hosted, plays, scores = playing.hosts(config.engine), playing.name == _RAY, judge(config.engine).name == _RAY
    if ranks is not None and "trainers" in hosted:
        raise UserError(f"engine.ray.trainers and --ranks both name trainer ranks; set engine.ray.trainers to {ranks}")
    gpus = {"sampler": sizes.gpus_per_sampler, "teacher": sizes.gpus_per_teacher, "trainer": sizes.gpus_per_trainer}
    return Layout(
        sizes.trainers if "trainers" in hosted else ranks or 1, "trainers" in hosted, sizes.samplers if plays else 0,
        sizes.teachers if scores else 0, sizes.environments if "environments" in hosted else 0, gpus=tuple(gpus.items()),
    )  # fmt: skip
