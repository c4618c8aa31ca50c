"""A small run whose episodes a plan can take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.test_run import run
from tests.undrawn import undrawn


@pytest.fixture(scope="package")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    with undrawn():  # nobody looks at its pictures
        return run(tmp_path_factory.mktemp("plan") / "r", **{"train.iterations": 2, "eval.every": 0})[0]
