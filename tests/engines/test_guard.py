"""What a guard does when the process that it guards for is gone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

RUN = """
import subprocess, sys, time
from pathlib import Path
from agentdistill.engines.guard import Guard, children

guard = Guard()
guard.folder(Path(sys.argv[1]))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
guard.processes(children())
print(child.pid, flush=True)
if sys.argv[2] == "close":
    guard.close()
else:
    time.sleep(600)
"""


@pytest.mark.parametrize("ending", ["kill", "close"])
def test_processes_end_and_folders_go_with_a_killed_process_and_stay_after_a_close(tmp_path: Path, ending: str) -> None:
    kept = tmp_path / "kept"
    (kept / "inside").mkdir(parents=True)
    run = subprocess.Popen([sys.executable, "-c", RUN, kept, ending], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    child = psutil.Process(int(run.stdout.readline()))
    if ending == "kill":
        run.kill()
    run.wait()
    alive = psutil.wait_procs([child], 10 if ending == "kill" else 1)[1]
    try:
        assert alive == ([] if ending == "kill" else [child])
        deadline = time.monotonic() + 5
        while ending == "kill" and kept.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert kept.exists() == (ending == "close")
    finally:
        for each in alive:
            each.kill()
