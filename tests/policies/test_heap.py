"""Memory that a process frees, as the kernel counts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from agentdistill.policies import heap
from agentdistill.policies.load import load_model
from tests.needs import needs_glibc

ROOT = Path(__file__).parents[2]


def faults(**environment: str) -> list[int]:
    """See `tests.heap`, in a process of its own that keeps what it frees."""
    needs_glibc()
    done = subprocess.run(
        [sys.executable, "-m", "tests.heap"], cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [int(word) for word in done.stdout.split()]


def test_what_is_freed_is_used_again() -> None:
    first, _, third = faults()
    assert third < 0.1 * first


@pytest.mark.parametrize(
    "setting", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}]
)
def test_what_a_user_has_set_stays(setting: dict[str, str]) -> None:
    counts = faults(**setting)
    assert min(counts) > 0.5 * max(counts)


def test_who_loads_a_model_on_a_cpu_keeps_what_is_freed(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(heap, "keep_freed", lambda: asked.append("kept"))
    load_model("tiny:32x1", tokenizer=tokenizer)
    assert asked
