"""Whether the experiment means something, and its environment is there with its data, its tasks and its sandbox."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentdistill import curricula, environment
from agentdistill.doctor.base import Finding, check, fail, ok, skipped, warn
from agentdistill.doctor.patient import Patient
from agentdistill.modules import import_module
from agentdistill.training import check as training_check


@check("experiment", "cheap")
def experiment(patient: Patient) -> Finding:
    """What `train` refuses before it loads anything (`training/check.py`)."""
    config = patient.experiment
    if config.env.module:
        import_module(config.env.module)
    training_check.check(config, patient.method, curricula.load(config.schedule))
    note = training_check.without_effect(config)
    return warn(note) if note else ok(f"method {config.method!r} on '{config.env.id}'")


@check("environment", "cheap", after=["experiment"], alone=True)
def requirements(patient: Patient) -> Finding:
    """Packages, data sets and Java that environments need."""
    lacking = {entry.id: "; ".join(entry.missing) for entry in environment.catalogue() if entry.missing}
    if patient.config is not None:
        env_id = patient.config.env.id
        return fail(f"'{env_id}' {lacking[env_id]}") if env_id in lacking else ok(f"'{env_id}' has what it needs")
    here = len(environment.registered()) - len(lacking)
    if lacking:
        others = "; ".join(f"{name} {what}" for name, what in lacking.items())
        return warn(f"{here} environments can run here, {len(lacking)} cannot: {others}")
    return ok(f"all {here} environments can run here")


@check("tasks", "model", after=["environment"])
def tasks(patient: Patient) -> Finding:
    """The environment can be made, its splits hold the tasks that are asked for, and one can be begun."""
    config = patient.experiment
    wanted = training_check.required_tasks(config)
    chosen, sizes = training_check.look_up(patient.pool.prototype(), config, wanted)
    patient.pool.reset(0, chosen[config.env.split][0])
    if any(each.privileged for each in config.teacher_roles.values()) and patient.pool.plan(0) is None:
        return fail(f"teacher.privileged shows the teacher the environment's plan, and '{config.env.id}' has none")
    return ok(", ".join(f"{split} {size}" for split, size in sizes.items()))


@check("sandbox", "model", after=["tasks"], alone=True)
def sandbox(patient: Patient) -> Finding:
    """What the sandboxes that model-written code would run in hold, by their own probes."""
    if patient.config is None:
        opened = importlib.import_module("agentdistill.tools.sandbox").shared("auto")
        return _judged([opened.probe().as_dict()])
    return _judged(list(_reports(patient.pool.run_metadata())))


def _reports(about: Any) -> Iterator[Mapping[str, Any]]:
    """What probes said, wherever it stands in what an environment has recorded."""
    if isinstance(about, Mapping):
        if "backend" in about and "holds" in about:
            yield about
        else:
            for each in about.values():
                yield from _reports(each)


def _judged(reports: Sequence[Mapping[str, Any]]) -> Finding:
    if not reports:
        return skipped("the environment runs no model-written code in a sandbox")
    lacking = {f"{each['backend']} has no {name}": why for each in reports for name, why in dict(each["missing"]).items()}
    if lacking:
        return warn("; ".join(f"{what}: {why}" for what, why in lacking.items()))
    return ok("; ".join(dict.fromkeys(f"{each['backend']} holds {', '.join(each['holds'])}" for each in reports)))
