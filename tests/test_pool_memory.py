"""Memory of a process and of all that it has started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agentdistill.pool_memory import descendants, used

HELD = 64 << 20
LEAF = f"import sys; kept = bytearray(b'x' * {HELD}); print(1, flush=True); sys.stdin.read()"
TREE = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {LEAF!r}], stdin=subprocess.PIPE, start_new_session=True)
sys.stdin.read()
child.communicate()
"""


@pytest.fixture
def tree() -> Iterator[int]:
    """A process with a child in a session of its own, which holds 64 MiB."""
    with subprocess.Popen([sys.executable, "-c", TREE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate()
    assert used(process.pid) == 0


def test_what_descendants_hold_counts_in_whatever_session_they_are(tree: int) -> None:
    (child,) = descendants(tree)
    assert os.getsid(child) != os.getsid(tree)
    assert used(child) > HELD
    assert HELD < used(tree) < used(child) + used(os.getpid())
    assert {tree, child} <= set(descendants(os.getpid()))


def test_pages_of_programs_and_libraries_count_once(tree: int) -> None:
    (child,) = descendants(tree)
    alone = used(tree) - used(child)
    with open(f"/proc/{tree}/statm") as file:
        own = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert alone < own  # the child's share of the tree is less than all it has resident


def test_a_process_that_is_no_more_uses_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert (used(process.pid), descendants(process.pid)) == (0, [])
