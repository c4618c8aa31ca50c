"""Whether the Ray cluster can hold the actors that an experiment asks for."""

from __future__ import annotations

from agentdistill.doctor.base import Finding, check, fail, ok, skipped
from agentdistill.doctor.patient import Patient
from agentdistill.engines.registry import check_section, judge, player


@check("cluster", "model")
def cluster(patient: Patient) -> Finding:
    """Every actor finds room on a node, by what the nodes have in all; what is short is named."""
    section = patient.experiment.engine
    check_section(section)
    if not {player(section).package, judge(section).package} & {"ray"}:
        return skipped("no role is played by actors of a Ray cluster")
    from agentdistill.cluster.connect import Cluster
    from agentdistill.cluster.placement import places, shortage

    wanted, there = places(section, patient.experiment.elsewhere), Cluster(section.address)
    try:
        nodes = there.nodes()
    finally:
        there.close()
    if short := shortage(wanted, nodes):
        return fail(short)
    cpus, gpus = sum(place.cpus for place in wanted), sum(place.gpus for place in wanted)
    room = ", ".join(f"{node.name} {node.resources.get('CPU', 0):g} CPU {node.resources.get('GPU', 0):g} GPU" for node in nodes)
    return ok(f"{len(wanted)} actors take {cpus:g} CPU and {gpus:g} GPU of {len(nodes)} nodes ({room})")
