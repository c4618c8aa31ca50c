"""Whole programs whose environments are in workers: what a worker must import, a parent that is killed, a run resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import agentdistill as ad
from agentdistill.errors import UserError
from agentdistill.modules import import_module
from agentdistill.pool import EnvPool, Workers

pytestmark = pytest.mark.usefixtures("undrawn")  # nobody looks at the runs' pictures

ENVIRONMENT = """
import random
import agentdistill as ad
from helper import LETTERS

@ad.register("user/Reverse-v0")
class Reverse(ad.TextEnv):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.word = "".join(random.Random(seed).choices(LETTERS, k=2))
        return self.word, {}

    def step(self, action):
        won = action.strip() == self.word[::-1]
        return "no", float(won), won, False, {"success": won}

    def expert_action(self):
        return self.word[::-1]

    def plan(self):
        return self.word[::-1]
"""
EXPERIMENT = """
name: small
env: {id: user/Reverse-v0, module: reverse.py, max_turns: 4, max_context: 128}
student: {model: tiny:32x1, sft: {demonstrations: 16, noisy: 0, steps: 6, batch: 8}}
teacher: {model: initial, privileged: true}
sampling: {max_tokens: 6}
train: {iterations: 8, tasks: 4, checkpoint_every: 2}
eval: {tasks: 4}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "reverse.py").write_text(ENVIRONMENT)
    (tmp_path / "helper.py").write_text("LETTERS = 'abc'")
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    return tmp_path


def run(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(textwrap.dedent(source))
    return subprocess.run([sys.executable, "program.py"], cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def train(folder: Path, out: str, *options: str) -> subprocess.Popen[bytes]:
    words = ["train", str(folder / "small.yaml"), "--out", str(folder / out), "--resume", *options]
    log = (folder / f"{out}.log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "agentdistill.cli", *words], stdout=log, stderr=log, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)},
    )  # fmt: skip


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not Path(f"/proc/{pid}").exists()


def test_a_run_killed_with_its_workers_and_resumed_with_others_is_the_same_to_the_byte(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder / "killed"
    process = train(folder, "killed", "--env.workers", "2", "--env.recycle", "20")
    try:
        deadline = time.monotonic() + 60
        while not (out / "metrics.jsonl").exists() or (out / "metrics.jsonl").read_text().count("iteration") < 5:
            assert process.poll() is None, (folder / "killed.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        workers = children(process.pid)
    finally:
        process.kill()
        process.wait()
    assert len(workers) == 2
    assert all(gone(pid) for pid in workers)
    monkeypatch.syspath_prepend(str(folder))
    ad.train(folder / "small.yaml", out=out, resume=True, say=lambda line: None, **{"env.workers": 1})
    ad.train(folder / "small.yaml", out=folder / "whole", say=lambda line: None)
    assert (out / "metrics.jsonl").read_bytes() == (folder / "whole" / "metrics.jsonl").read_bytes()
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["label"] == "after"


def test_what_a_program_registers_is_found_by_its_workers_or_the_remedy_is_named(folder: Path) -> None:
    """By the name of a module, by a file, by names alone; and not what only the program itself has."""
    said = run(folder, """
        import agentdistill as ad
        from agentdistill.pool import EnvPool, Workers
        from agentdistill.modules import import_module
        import reverse

        @ad.tool
        def double(n: int) -> int:
            '''Twice n.'''
            return 2 * n

        @ad.register("here/Mine-v0")
        class Mine(ad.TextEnv):
            pass

        rows = [{"question": "1 + 1", "answer": 2}]
        ad.register("here/Named-v0", "reverse:Reverse")
        ad.register("here/Rows-v0", tools=["calculator"], tasks=rows, grade="number")
        ad.register("here/Tools-v0", tools=[double], tasks=rows, grade="number")
        for name in ("user/Reverse-v0", "here/Named-v0", "here/Rows-v0", "here/Mine-v0", "here/Tools-v0"):
            pool = EnvPool(name, workers=Workers(1))
            try:
                print(name, pool.reset(0, 0).observation)
            except ad.UserError as error:
                print(error)
            pool.close()
    """)  # fmt: skip
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert lines[:3] == ["user/Reverse-v0 cc", "here/Named-v0 cc", "here/Rows-v0 1 + 1"]
    for line, name in zip(lines[3:], ("here/Mine-v0", "here/Tools-v0"), strict=True):
        assert line.startswith(f"environment '{name}' cannot be made in worker processes: it was registered in this session")
        assert line.endswith(
            "put it at the top level of a module or a .py file of its own and name that as env.module, or set env.workers to 0"
        )


def test_a_module_that_fails_in_the_worker_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "fickle.py"
    path.write_text('import agentdistill as ad\nad.register("user/Fickle-v0", "agentdistill.envs.arithmetic:ArithmeticEnv")')
    import_module(str(path))
    path.write_text("1 / 0")
    with pytest.raises(UserError, match=r"fickle\.py' failed while it was imported: ZeroDivisionError"):
        EnvPool("user/Fickle-v0", workers=Workers(1)).reset(0, 0)
    path.write_text("import os\nos._exit(3)")
    with pytest.raises(UserError, match=r"'user/Fickle-v0' cannot be started: it exited with code 3; set env\.workers to 0"):
        EnvPool("user/Fickle-v0", workers=Workers(1)).reset(0, 0)
