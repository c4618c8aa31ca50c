"""A short campaign of the chaos harness, and the harness itself: what it is to find, it finds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentdistill.store import Store
from tests.chaos import running
from tests.chaos.blows import BLOWS, blow
from tests.chaos.campaign import Campaign
from tests.chaos.checks import end_faults, metrics_faults, store_faults
from tests.chaos.machine import MARK, Disk, Hang, Process, marked, until
from tests.forking import Forks
from tests.needs import needs_mount

SEED = int(os.environ.get("AGENTDISTILL_CHAOS_SEED", "0"))


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with Forks(tmp_path_factory.mktemp("forks"), undrawn=True) as forks:
        yield Campaign(tmp_path_factory.mktemp("chaos"), SEED, print, forks=forks)


def test_a_run_that_every_blow_has_struck_is_the_run_that_nobody_disturbed(campaign: Campaign) -> None:
    print(f"seed {SEED}; by hand, for longer: python -m tests.chaos --minutes 30")
    kinds = {name for name, each in BLOWS.items() if not each.of}
    with Disk(campaign.folder / "tried", 1) as disk:
        kinds -= set() if disk.mounted else {"fill the disk"}
    while campaign.tally.blows.keys() != kinds and campaign.tally.rounds < 4:  # a run may end before all have struck it
        campaign.round("plain", len(kinds) - len(campaign.tally.blows))
    assert campaign.tally.faults == []
    assert campaign.tally.blows.keys() == kinds


def test_a_loss_a_doubling_and_another_number_are_found(campaign: Campaign, tmp_path: Path) -> None:
    whole = campaign.whole("plain")
    assert end_faults(whole, whole) == store_faults(whole) == []
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    first, second = Store(out / "store").batches()[-2:]
    doubled = Store(out / "store").read(first)
    Store(out / "store").write(first, [*doubled, doubled[0]])
    assert store_faults(out) == [f"episode {doubled[0].id} is stored 2 times"]
    assert any("each once" in fault for fault in end_faults(out, whole))
    (out / "store" / f"{second}.parquet").unlink()
    assert "is missing" in store_faults(out)[0]
    path = out / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-9])  # a line that a kill has cut is no fault
    assert metrics_faults(out, whole) == []
    path.write_bytes(path.read_bytes().replace(b'"step": 8', b'"step": 9', 1))
    assert "is another than in the undisturbed run" in metrics_faults(out, whole)[0]
    (out / "store" / ".x.tmp").touch()
    assert "store/.x.tmp was left behind" in end_faults(out, whole)


def test_a_run_that_does_not_survive_and_one_that_leaves_a_process_are_found(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a blow that is no fault of the run: it takes a file that the run needs, and starts a process in its name."""
    monkeypatch.setattr(running, "GOING", 0.5)
    child: list[subprocess.Popen[bytes]] = []

    @blow("harm", codes=(-signal.SIGKILL,))
    def harm(run, rng) -> bool:  # type: ignore[no-untyped-def]
        until((run.out / "progress.json").exists, 30, "progress")
        assert run.main.signal(signal.SIGKILL)
        (run.out / "progress.json").write_text("{")
        words = [sys.executable, "-c", "import time; time.sleep(60)"]
        child.append(subprocess.Popen(words, env={**os.environ, MARK: run.mark}))
        return True

    try:
        harmed = beside(campaign, 10, "harm")
        harmed.round("plain", 1)
    finally:
        del BLOWS["harm"]
        child[0].wait()
    assert "outlived the run: " in harmed.tally.faults[0]
    assert "progress.json' is damaged" in harmed.tally.faults[1]
    assert (campaign.folder / "round-011-plain-kept" / "progress.json").read_text() == "{"


def beside(campaign: Campaign, rounds: int, *blows: str) -> Campaign:
    """Another one, whose undisturbed runs are there already."""
    made = Campaign(campaign.folder, SEED, print, sorted(blows), campaign._forks)
    made._seconds, made.tally.rounds = campaign._seconds, rounds
    return made


def test_waiting_ends_without_a_sign_of_life_and_a_mark_finds_whoever_inherited_it(tmp_path: Path) -> None:
    with pytest.raises(Hang, match=r"no thing within 0\.1 s"):
        until(lambda: False, 0.1, "thing")
    signs = iter(range(30))
    until(lambda: next(signs) > 20, 0.05, "thing", time.monotonic)
    words = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], start_new_session=True)"
    process = subprocess.Popen([sys.executable, "-c", words], stdin=subprocess.PIPE, env={**os.environ, MARK: "here"})
    until(lambda: len(marked("here")) == 2, 20, "child")
    for each in marked("here"):
        assert each.pause(0.05)
        assert each.signal(signal.SIGKILL)
    process.wait()
    until(lambda: not marked("here"), 20, "end")
    assert Process.read(process.pid) is None


def test_a_disk_is_full_until_it_is_cleared(tmp_path: Path) -> None:
    with Disk(tmp_path / "disk", 1) as disk:
        needs_mount(disk.mounted)
        assert disk.fill(8192)
        with pytest.raises(OSError, match="No space left"):
            (disk.folder / "x").write_bytes(bytes(20_000))
        disk.clear()
        (disk.folder / "x").write_bytes(bytes(20_000))
    assert not disk.folder.exists()
