"""A run to look at, and a browser to look at it with; both are made once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentdistill.store import Store
from agentdistill.trajectory import Trajectory
from agentdistill.viewer import write
from tests.needs import needs_chromium
from tests.viewer import stored_run


@dataclass(frozen=True)
class Stored:
    """A run's folder, its trajectories with their batches in the order of the page, and the page."""

    folder: Path
    items: list[tuple[str, Trajectory]]
    page: Path

    def place(self, trajectory_id: str) -> int:
        return next(place for place, (_, item) in enumerate(self.items) if item.id == trajectory_id)

    def get(self, trajectory_id: str) -> Trajectory:
        return self.items[self.place(trajectory_id)][1]


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory, registered: None) -> Stored:
    """A finished run (see `stored_run`), which no test may change."""
    folder = stored_run.play(tmp_path_factory.mktemp("viewer") / "a run")
    page, source = write(folder, folder / "page.html")
    items = [(batch, item) for batch in source.batches for item in Store(folder / "store").read(batch)]
    return Stored(folder, items, page)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Chrome"]:  # type: ignore[name-defined]  # noqa: F821, UP037
    programs = needs_chromium()
    from tests.viewer.browser import chromium

    with chromium(*programs, tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def viewer(browser, stored: Stored) -> Iterator["Viewer"]:  # type: ignore[name-defined,no-untyped-def]  # noqa: F821, UP037
    """The run's page, opened from its file in a window that is tall enough for the whole list. No test may cause an error."""
    from tests.viewer.browser import Viewer

    browser.set_window_size(1440, 3400)
    found = Viewer(browser, stored.page.as_uri())
    found.errors()
    yield found.open()
    assert found.errors() == []
    found.js("localStorage.clear()")
