"""Whatever of a run's folder is damaged, every verb that reads it says so in a line, ends with 1, and touches nothing."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import agentdistill as ad
from agentdistill import api
from tests.forking import Forks

pytestmark = pytest.mark.usefixtures("undrawn")  # nobody looks at the runs' pictures

GAME = """
import agentdistill as ad


@ad.register("lab/Count-v{version}")
class Count(ad.TextEnv):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 1 + seed % 3
        return f"say {{self.left}}", {{"task_id": f"count-{{seed}}"}}

    def step(self, action):
        won = action.strip() == str(self.left)
        return "yes" if won else "no", float(won), won, False, {{"success": won}}

    def expert_action(self):
        return str(self.left)
"""
SFT = {"demonstrations": 8, "steps": 4, "batch": 4, "noisy": 0.0}
RUN = {
    "name": "count",
    "student": {"model": "tiny:32x1", "sft": SFT},
    "teacher": {"model": "tiny:32x1", "sft": SFT},
    "sampling": {"max_tokens": 3},
    "train": {"iterations": 2, "tasks": 3, "checkpoint_every": 1},
    "eval": {"tasks": 4, "temperature": 1.0},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run with a second scorer's scores, and the file of its environment beside it."""
    home = tmp_path_factory.mktemp("whole")
    (home / "count.py").write_text(GAME.format(version=0))
    environment = {"id": "lab/Count-v0", "module": str(home / "count.py"), "max_turns": 2, "max_context": 64}
    api.train({**RUN, "env": environment}, out=home / "run", say=lambda _: None)
    api.score(home / "run", str(home / "run" / "teacher"), name="second", say=lambda _: None)
    yield home
    ad.environment.unregister("lab/Count-v0")


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as process:
        yield process


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """Digest and time of every file, and the folders."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "", path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


def flip(path: Path, place: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path: Path) -> None:
    path.write_bytes(b"\xff\x00{]" + path.read_bytes()[4:])


BATCH, SCORES = "store/iter-000002.parquet", "store/scores/second/iter-000002@00000000.parquet"
REPLAY, SCORE, WHAT_IF, REPORT = "replay", "score", "score --what-if method=sod,delta=0.5 --scorer second", "report"
BRANCH = "replay --batch eval-before --policy RUN/teacher --turn 1 --out OUT"
CASES: list[tuple[Callable[[Path], object], str, str, list[str]]] = [
    (flip, BATCH, "iter-000002.parquet is not as it was written", [REPLAY, SCORE, WHAT_IF]),
    (lambda path: flip(path, 0.999), BATCH, "iter-000002.parquet is not as it was written", [REPLAY, SCORE, WHAT_IF]),
    (Path.unlink, BATCH, "iter-000002.parquet is missing", [REPLAY, SCORE, WHAT_IF]),
    (cut, BATCH, "iter-000002.parquet is not as it was written", [REPLAY, SCORE, WHAT_IF]),
    (lambda path: path.write_bytes(b""), BATCH, "iter-000002.parquet is not as it was written", [REPLAY, SCORE, WHAT_IF]),
    (cut, "store/eval-before.parquet", "eval-before.parquet is", [REPLAY, BRANCH]),
    (flip, SCORES, "iter-000002@00000000.parquet", [REPLAY, WHAT_IF]),
    (cut, SCORES, "iter-000002@00000000.parquet", [REPLAY, SCORE, WHAT_IF]),
    (garble, "store/scores/second/scorer.json", "scorer.json is damaged", [REPLAY, SCORE]),
    (garble, "store/index.json", "index.json is damaged", [REPLAY, SCORE, WHAT_IF]),
    (cut, "store/index.json", "index.json is damaged", [REPLAY, SCORE]),
    (garble, "experiment.yaml", "experiment.yaml' is not as the run wrote it", [REPLAY]),
    (Path.unlink, "experiment.yaml", "experiment.yaml' is missing", [REPLAY]),
    (cut, "progress.json", "progress.json' is damaged", [REPLAY]),
    (lambda path: path.write_bytes(b""), "metrics.jsonl", "holds no metrics", [REPORT]),
    (Path.unlink, "metrics.jsonl", "holds no metrics", [REPORT]),
]


@pytest.mark.parametrize(("harm", "name", "says", "verbs"), CASES, ids=[f"{n}-{case[1]}" for n, case in enumerate(CASES)])
def test_damage_ends_in_one_line_and_touches_nothing(
    harm: Callable[[Path], object], name: str, says: str, verbs: list[str], whole: Path, forks: Forks, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(whole / "run", tmp_path / "run"))
    harm(run / name)
    before = state(run)
    for verb in verbs:
        first, *rest = verb.replace("RUN", str(run)).replace("OUT", str(tmp_path / "out")).split()
        words = [first, str(run), *rest] + (["--scorer", f"second={run / 'teacher'}"] if verb == SCORE else [])
        forks.start(words, str(tmp_path / "printed"))
        assert forks.wait() == 1, verb
        printed = (tmp_path / "printed").read_text()
        last = printed.splitlines()[-1]
        assert last.startswith("agentdistill: "), printed
        assert says in last, printed
        assert "Traceback" not in printed
        assert state(run) == before, verb


def test_what_is_not_damaged_is_replayed_all_the_same(whole: Path, forks: Forks, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole / "run", tmp_path / "run"))
    forks.start(["replay", str(run)], str(tmp_path / "printed"))
    assert forks.wait() == 0
    complete = (tmp_path / "printed").read_text().splitlines()
    cut(run / BATCH)
    forks.start(["replay", str(run)], str(tmp_path / "printed"))
    assert forks.wait() == 1
    rest = (tmp_path / "printed").read_text().splitlines()
    assert [line for line in complete if not line.startswith("iter-000002")] == [
        line for line in rest if not line.startswith(("iter-000002", "agentdistill: "))
    ]


def test_another_version_of_the_environment_is_told_by_name(whole: Path, forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "next.py").write_text(GAME.format(version=1))
    before = state(whole / "run")
    forks.start(["replay", str(whole / "run"), "--module", str(tmp_path / "next.py")], str(tmp_path / "printed"))
    assert forks.wait() == 1
    (line,) = (tmp_path / "printed").read_text().splitlines()
    assert line.startswith("agentdistill: no environment is registered as 'lab/Count-v0'; did you mean 'lab/Count-v1'?")
    assert state(whole / "run") == before


def test_export_and_provenance_say_how_to_read_what_is_not_damaged(whole: Path, forks: Forks, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole / "run", tmp_path / "run"))
    cut(run / BATCH)
    export = ["export", str(run), "--format", "jsonl", "--out", str(tmp_path / "out.jsonl")]
    for verb in (export, ["provenance", str(run), "--student", "second"]):
        forks.start(verb, str(tmp_path / "printed"))
        assert forks.wait() == 1
        assert "the others can be read one at a time, by --batch" in (tmp_path / "printed").read_text().splitlines()[-1]
    assert not (tmp_path / "out.jsonl").exists()
    forks.start([*export, "--batch", "iter-000001"], str(tmp_path / "printed"))
    assert forks.wait() == 0
    forks.start([*export[:-1], str(tmp_path / "no.jsonl"), "--batch", "iter-000002"], str(tmp_path / "printed"))
    assert forks.wait() == 1
    assert "by --batch" not in (tmp_path / "printed").read_text()
