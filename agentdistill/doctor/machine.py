"""Whether the machine has the memory and the disk that a run takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from agentdistill.doctor.base import Finding, check, fail, ok, skipped, warn
from agentdistill.doctor.patient import Patient
from agentdistill.doctor.sizes import adapter_parameters, parameters

_TRAINED, _FROZEN = 16, 4
"""Bytes a parameter in fp32: with gradient and two moments, and alone."""
_KEPT = 12
"""Bytes a trained parameter in a checkpoint: the weight and two moments."""
_LOGS = 256 << 20  # bytes for trajectories, metrics and the report
GIB = 1 << 30


@check("memory", "cheap", at_start=True, alone=True)
def memory(patient: Patient) -> Finding:
    """Weights, gradients and optimizer state fit; activations come on top."""
    total, free, where = machine_memory()
    there = f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free {where}"
    if patient.config is None:
        return ok(there) if free > 2 * GIB else warn(f"only {there}")
    held = list(_held(patient))
    if any(count is None for count, _ in held):
        return skipped("a model is not on this machine, so its size is not known")
    needed = sum(size * (count or 0) for count, size in held)
    said = f"weights, gradients and optimizer state take {needed / GIB:.1f} GiB, activations on top, and {there}"
    if needed > total:
        return fail(f"{said}; take a smaller model, student.lora, or a larger machine")
    return warn(said) if needed > 0.8 * free else ok(said)


@check("disk", "cheap", at_start=True, alone=True)
def disk(patient: Patient) -> Finding:
    """Two checkpoints (a new one is written before the old one goes) and the final model fit where the run goes."""
    try:
        folder = (patient.folder or Path.cwd()).absolute()
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
    except OSError as error:  # a name too long, no permission: told where the folder is made
        return skipped(f"the disk at '{patient.folder}' cannot be looked at: {error.strerror}")
    there = f"{free / GIB:.1f} GiB are free at '{folder}'"
    if patient.config is None:
        return ok(there) if free > 2 * GIB else warn(f"only {there}")
    source, lora = patient.source("student"), patient.config.student.lora
    vocabulary = patient.config.tokenizer_vocab
    trained = parameters(source, vocabulary) if lora is None else adapter_parameters(source, lora)
    if trained is None:
        return skipped("the student is not on this machine, so the size of its checkpoints is not known")
    warmed = 4 * (parameters(source, vocabulary) or 0) if patient.config.student.sft is not None else 0
    needed = 2 * _KEPT * trained + 4 * trained + warmed + _LOGS
    said = f"a run keeps up to {needed / GIB:.1f} GiB (two checkpoints, models, trajectories), and {there}"
    if needed - _LOGS > free:
        return fail(f"{said}; make room, or choose another --out")
    return warn(said) if needed > free else ok(said)


def _held(patient: Patient) -> Iterator[tuple[int | None, int]]:
    """Parameters that a run holds in memory, and bytes for each."""
    config, vocabulary = patient.experiment, patient.experiment.tokenizer_vocab
    lora = config.student.lora
    student = parameters(patient.source("student"), vocabulary)
    yield student, _TRAINED if lora is None or config.student.sft is not None else _FROZEN
    if lora is not None:
        yield adapter_parameters(patient.source("student"), lora) or 0, _TRAINED
    for role in patient.sections:
        if role != "student":
            yield parameters(patient.source(role), vocabulary), _FROZEN
    if lora is None:  # the student's own weights, as they were or averaged, are copies
        own = [each for each in (*config.teacher_roles.values(), config.reference) if each is not None]
        yield from ((student, _FROZEN) for each in own if each.model in ("initial", "ema"))


def machine_memory() -> tuple[int, int, str]:
    """Bytes in all and free, on the GPU where there is one."""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return int(total), int(free), "on the GPU"
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return total, 1024 * int(lines["MemAvailable"].split()[0]), "in memory"
    except (OSError, KeyError, ValueError):  # not Linux
        return total, total, "in memory"
