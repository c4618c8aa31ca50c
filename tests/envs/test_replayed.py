"""Stored episodes of every built-in environment repeat themselves (`benchmarks/replay.py` plays 200 of each)."""

from __future__ import annotations

from benchmarks.replay import measure
from tests.envs.test_registered import env_id  # noqa: F401 - a fixture: every built-in environment


def test_stored_episodes_repeat_themselves(env_id: str, capsys) -> None:  # noqa: F811
    found = measure(env_id, 4, None)
    assert (found["episodes"], found["differ"]) == (4, 0), capsys.readouterr().out
