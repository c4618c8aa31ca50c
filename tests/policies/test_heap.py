"""Memory that a process frees, as the kernel counts it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import missing

ROOT = Path(__file__).parents[2]


def faults(**environment: str) -> list[int]:
    """See `tests.heap`, in a process that has loaded a model."""
    if platform.libc_ver()[0] != "glibc":
        missing("the C library is not glibc, whose settings these are")
    done = subprocess.run(
        [sys.executable, "-m", "tests.heap"], cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
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
