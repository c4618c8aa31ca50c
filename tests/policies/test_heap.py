"""Memory that a process frees, as the kernel counts it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from tests.needs import missing

PROGRAM = """
import resource, sys
import torch
from agentdistill.policies.load import load_model
from agentdistill.policies.tiny import train_tokenizer

load_model("tiny:32x1", tokenizer=train_tokenizer(["to be or not to be"], 300))
counts = []
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(2 << 20) for _ in range(32)]  # 8 MiB each
    del held
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(*counts)
"""


def faults(**environment: str) -> list[int]:
    """Pages that the kernel gave each of three times that 256 MiB were held, in a process that has loaded a model."""
    if platform.libc_ver()[0] != "glibc":
        missing("the C library is not glibc, whose settings these are")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return [int(word) for word in done.stdout.split()]


def test_what_is_freed_is_used_again_where_a_model_was_loaded() -> None:
    first, _, third = faults()
    assert third < 0.1 * first


@pytest.mark.parametrize(
    "setting", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}]
)
def test_what_a_user_has_set_stays(setting: dict[str, str]) -> None:
    counts = faults(**setting)
    assert min(counts) > 0.5 * max(counts)
