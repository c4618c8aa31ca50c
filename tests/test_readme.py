"""The README's own words, run as a new user would type them: its code, and every command it shows.

`make quickstart` and `make test` are run by `.ci/run`, which also installs as the Makefile does. Training commands get
overrides that shrink them to seconds. What needs a GPU is named in `NOT_HERE`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.forking import Forks
from tests.needs import needs, needs_data

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOT_HERE = {
    "make quickstart", "make test",  # .ci/run
    "pip install torch==2.13.0", "pip install -e '.[textworld]'",  # .ci/run, through the Makefile
    "agentdistill train experiments/gpu/tcod_alfworld_3b.yaml",  # needs a GPU and 3 B weights
    "export AGENTDISTILL_DATA=~/data",  # set where the tests are started
}  # fmt: skip
SHRINK = [
    "--train.iterations", "1", "--eval.tasks", "8", "--eval.every", "0", "--student.sft.steps", "10", "--teacher.sft.steps",
    "10", "--student.sft.demonstrations", "16", "--teacher.sft.demonstrations", "16", "--student.sft.eval_every", "0",
    "--student.sft.stop_at_success", "null", "--env.max_turns", "4",
]  # fmt: skip


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line.partition("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line]


def run(forks: Forks, words: Sequence[str], code: int = 0, **variables: str) -> str:
    """What `agentdistill …` or `python FILE` prints, in a process of its own."""
    got, said = forks.run(words, **variables)
    assert got == code, f"{' '.join(words)}\n{said}"
    return said


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Forks]]:
    """A user's folder with the experiments in it, and what runs commands there."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "experiments").symlink_to(ROOT / "experiments")
    with Forks(folder, ["textworld"], undrawn=True) as forks:  # `make quickstart` paints the report that a user gets
        yield folder, forks


@pytest.fixture(scope="module")
def home(user: tuple[Path, Forks]) -> Path:
    """The user's folder with a small run where `make quickstart` puts its own."""
    folder, forks = user
    run(forks, ["train", "experiments/quickstart.yaml", *SHRINK])
    return folder


def test_the_example_environment_takes_under_25_lines_and_trains(user: tuple[Path, Forks]) -> None:
    folder, forks = user
    code = next(block for block in blocks("python") if "ad.train" in block)
    assert len([line for line in code.splitlines() if line.strip()]) < 25
    (folder / "user.py").write_text(code + "\nprint(run.summary)\n")
    assert "'after'" in run(forks, ["python", "user.py"])
    assert (folder / "runs" / "tiny" / "report" / "index.html").is_file()


def test_the_example_tool_becomes_an_environment(user: tuple[Path, Forks]) -> None:
    folder, forks = user
    code = next(block for block in blocks("python") if "@ad.tool" in block)
    (folder / "units.jsonl").write_text('{"question": "How many metres are 3 km?", "answer": 3000, "split": "train"}\n')
    script = (
        "import agentdistill as ad\n" + code + "\nenv = ad.make('lab/Units-v0')\nprint(env.reset(seed=0)[0])\n"
        'call = \'<tool_call>{"name": "convert", "arguments": {"amount": 3, "unit": "km"}}</tool_call>\'\n'
        "print(repr(env.step(call)[0]))\nprint(env.step('\\\\boxed{3000}')[1])\n"
    )
    (folder / "tool.py").write_text(script)
    question, response, reward = run(forks, ["python", "tool.py"]).strip().splitlines()[-3:]
    assert question == "How many metres are 3 km?"
    assert "3000" in response
    assert reward == "1.0"


def test_the_example_that_reads_trajectories_runs(home: Path, user: tuple[Path, Forks]) -> None:
    code = next(block for block in blocks("python") if "load_run" in block)
    (home / "read.py").write_text("import agentdistill as ad\n" + code)
    assert "cooking-" in run(user[1], ["python", "read.py"])


def test_every_command_runs(home: Path, user: tuple[Path, Forks]) -> None:
    ran = 0
    for command in commands():
        if command in NOT_HERE or "experiments/gpu" in command:
            continue
        words = shlex.split(command)
        assert words[0] == "agentdistill", f"a command that nothing runs: {command}"
        small = SHRINK if words[1] == "train" and "--dry-run" not in words else []
        if words[1] in ("eval", "rollout"):
            small = ["--max-turns", "4"] if "--panel" in words else ["--tasks", "4", "--max-turns", "4"]
        if words[1] == "panel":
            small = ["--tasks", "4"]
        run(user[1], [*words[1:], *small])
        ran += 1
    assert ran >= 5


def test_the_dry_runs_for_a_gpu_need_the_data_that_the_readme_says_and_nothing_else(user: tuple[Path, Forks]) -> None:
    needs("alfworld", "pip install 'agentdistill[alfworld]'")
    dry = [shlex.split(c)[1:] for c in commands() if "experiments/gpu" in c and "--dry-run" in c]
    assert dry
    lines = README.partition("## On a GPU")[2].partition("\n## ")[0]
    assert "AGENTDISTILL_DATA" in lines.partition("--dry-run")[0]  # said before it is needed
    for words in dry:
        said = run(user[1], words, 1, AGENTDISTILL_DATA="")
        assert "AGENTDISTILL_DATA is not set" in said
    data = str(needs_data("alfworld").parent)
    for words in dry:
        assert "optimizer_steps" in run(user[1], words, AGENTDISTILL_DATA=data)
