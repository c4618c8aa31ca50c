"""What an experiment will cost: memory, time and devices, before any is spent.

Sizes are counted on Transformers' own modules without their weights. Times are measured on this machine with models of the same
shape, or worked out from a device's figures.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path

from agentdistill.config import Experiment
from agentdistill.cost.devices import HERE, device
from agentdistill.cost.layout import MOST, Layout, layout_of
from agentdistill.cost.measured import Measured
from agentdistill.cost.memory import Needs, Role, fewest
from agentdistill.cost.meters import Meter, Roofline
from agentdistill.cost.models import models_of
from agentdistill.cost.own import own_seconds
from agentdistill.cost.plan import GIB, ROOM, Plan
from agentdistill.cost.seconds import evaluating, seconds
from agentdistill.cost.work import allowed, like, work_of
from agentdistill.doctor.machine import machine_memory
from agentdistill.engines.registry import judge, player
from agentdistill.engines.section import LOCAL
from agentdistill.signals import Method


def estimate(config: Experiment, where: str = HERE, episodes: str | Path | None = None, ranks: int | None = None) -> Plan:
    """What an experiment will cost (see `api.plan`).

    Args:
        where: `here`, or a device by name.
        episodes: a run whose episodes are taken for this one's; the longest allowed ones by default.
        ranks: that torchrun starts; as few as hold it by default.
    """
    layout = layout_of(config, ranks)
    budget, packed = config.train.token_budget, config.train.packing is not False
    lengths = allowed(config) if episodes is None else like(episodes, budget, packed)
    models, work = models_of(config), work_of(config, lengths)
    meter: Meter
    if where == HERE:
        capacity, name = float(machine_memory()[0]), f"this machine ({os.cpu_count()} CPUs), measured"
        needs = Needs(config, models, work, _resident())
        meter = Measured(Method.load(config.method))
        layout = dataclasses.replace(layout, together=ranks is not None or layout.by_ray)
    else:
        found = device(where)
        capacity, name = found.memory, f"{found.name}, by its maker's figures"
        needs, meter = Needs(config, models, work, 1.0 * GIB, gpu=True), Roofline(found)  # CUDA's context and its libraries'
    room = ROOM * capacity
    wider = dataclasses.replace(layout, apart=layout.by_ray)
    least = fewest(lambda n: needs.roles(wider.with_ranks(n)), room)
    if ranks is None and not layout.by_ray and least:
        layout = layout.with_ranks(least)
    roles, floor = needs.roles(layout), needs.roles(wider.with_ranks(MOST))
    instead = "" if least or layout.by_ray else _instead(needs, room)
    taken = seconds(config, models, work, layout, meter, own_seconds(config, work))
    return Plan(
        device=name,
        parameters={ref: each.parameters for ref, each in models.shapes.items()},
        guessed=[ref for ref, each in models.shapes.items() if each.guessed],
        lengths=lengths,
        roles=roles,
        capacity=capacity,
        together=layout.together,
        ranks=layout.ranks,
        fewest=least,
        floor=max(floor, key=lambda each: each.peak if each.device else 0),
        devices=_devices(roles, layout, room),
        instead=instead,
        seconds=taken,
        evaluating=evaluating(work, taken),
        iterations=work.iterations,
        tokens_per_second=work.written / max(1e-12, sum(taken.values())),
        notes=_notes(config, layout, lengths.known),
    )


def _devices(roles: Sequence[Role], layout: Layout, room: float) -> int:
    """How many devices the processes take: one each, or the share that the experiment gives an actor; 0: they have no room."""
    if layout.together:
        return int(sum(each.count * each.peak for each in roles) <= room)
    if any(each.peak > room for each in roles if each.device):
        return 0
    gpus = dict(layout.gpus)
    shares = [each.count * (gpus.get(each.kind, 0) or 1) for each in roles if each.device]
    return math.ceil(sum(shares))


def _instead(needs: Needs, room: float) -> str:
    """The actors of a Ray cluster that would hold what ranks of one node do not."""
    scorers = int(any(not each.here for each in needs.models.asked))
    layout = Layout(apart=True, samplers=1, scorers=scorers)
    if not (least := fewest(lambda n: needs.roles(layout.with_ranks(n)), room)):
        return ""
    count = sum(each.count for each in needs.roles(layout.with_ranks(least)) if each.device)
    settings = f"--engine.kind ray --engine.ray.trainers {least}"
    return f"; as actors of a Ray cluster, one each, they fit {count} of them ({settings}), with the driver on a host"


def _notes(config: Experiment, layout: Layout, known: bool) -> list[str]:
    engine, out = config.engine, []
    kinds = {player(engine).name, judge(engine).name} - {LOCAL}
    if kinds - {"ray"}:
        out.append(
            "student and teacher are counted as if both were in this process; vLLM is faster, and takes memory of its own"
        )
    if engine.overlap:
        out.append("engine.overlap is not counted: it takes a copy of the student's weights, and hides the environments' time")
    if layout.together and layout.by_ray + layout.ranked:
        out.append("all processes are on this machine and share its CPUs, so none of them makes it faster")
    if layout.environments or config.workers:
        out.append("memory of the environments' processes is not counted")
    if not known:
        out.append("the environment's own time is not known; --like takes it from a run that was made")
    return out


def _resident() -> float:
    """Bytes of this process now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return float(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
