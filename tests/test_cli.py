"""The command line: every mistake ends in one sentence and an exit code, never in a traceback."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from agentdistill import __version__, environment
from agentdistill.cli import main
from agentdistill.fields import rows

EXPERIMENT = {
    "name": "cli", "env": {"id": "lab/Guess-v0", "max_turns": 4, "max_context": 128},
    "student": {"model": "tiny:32x1", "sft": {"steps": 2, "demonstrations": 4}},
    "teacher": {"model": "initial", "privileged": True},
}  # fmt: skip


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    try:
        code = main(words)
    except SystemExit as stop:  # how the argument parser ends
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    return code, captured.out, captured.err


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An experiment file in an empty folder, which is where the command runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    (tmp_path / "bad.yaml").write_text("env: [")
    (tmp_path / "twice.yaml").write_text("seed: 1\nseed: 2")
    (tmp_path / "cycle.yaml").write_text("a: &x [*x]")
    (tmp_path / "hub.yaml").write_text(yaml.safe_dump(EXPERIMENT | {"student": {"model": "./nowhere"}}))
    (tmp_path / "module.py").write_text("raise RuntimeError('half done')")
    (tmp_path / "empty").mkdir()
    return "e.yaml"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train none.yaml", "experiment file 'none.yaml' cannot be read: No such file or directory"),
        ("train bad.yaml", "experiment file 'bad.yaml' is not valid YAML"),
        ("train hub.yaml", "there is no model folder './nowhere'"),
        ("train e.yaml --train.lrr 3", "unknown field 'train.lrr'; did you mean 'lr'?"),
        ("train e.yaml --train.lr", "--train.lr needs a value"),
        ("train e.yaml --train.lr fast", "train.lr must be a number, not 'fast'"),
        ("train e.yaml --env.options {a", "the value of --env.options is not valid YAML"),
        ("train e.yaml --method sodd", "unknown method preset 'sodd'; did you mean 'sod'?"),
        ("train e.yaml --schedule tcod-b2g", "unknown schedule 'tcod-b2g'; did you mean 'tcod-b2f'?"),
        ("train e.yaml --env.id lab/Gues-v0", "no environment is registered as 'lab/Gues-v0'; did you mean 'lab/Guess-v0'?"),
        ("train e.yaml --env.split trian", "has no split 'trian'; did you mean 'train'?"),
        ("train e.yaml --env.options {colour:\\ red}", "did not accept env.options"),
        ("train e.yaml --env.module no_such_module", "env.module 'no_such_module' cannot be imported"),
        ("train e.yaml --env.module none.py", "env.module 'none.py' does not exist"),
        ("train e.yaml --env.module module.py", "/module.py' failed while it was imported: RuntimeError: half done"),
        ("train e.yaml --student.model tiny:huge", "model 'tiny:huge' is unknown"),
        ("train e.yaml --student.sft null", "give it an sft section"),
        ("train e.yaml --teacher null", "needs a teacher's scores, and the experiment has no teacher section"),
        ("train e.yaml --method grpo", "train.rollouts is 1"),
        ("train e.yaml --dry-run --train.lrr 3", "unknown field 'train.lrr'"),
        ("sft e.yaml --role judge", "judge"),
        ("sft e.yaml", "no teacher.sft section"),
        ("sft none.yaml", "cannot be read"),
        ("envs lab/Gues-v0", "did you mean 'lab/Guess-v0'?"),
        pytest.param("envs lab/Guess-v0 --options {a", "YAML"),
        pytest.param("envs lab/Guess-v0 --options words", "--options must be a YAML mapping"),
        pytest.param("envs lab/Guess-v0 --options {fault:\\ reset}", "cannot reset"),
        ("eval ./nowhere lab/Guess-v0 --out o", "there is no model folder './nowhere'"),
        ("eval empty lab/Guess-v0 --out o", "holds no config.json"),
        ("eval tiny:xs lab/Guess-v0 --out o", "needs a tokenizer"),
        pytest.param("rollout ./nowhere lab/Guess-v0 --out o --options {a", "YAML"),
        ("rollout ./nowhere lab/Guess-v0 --out o --options words", "--options must be a YAML mapping"),
        ("rollout ./nowhere lab/Guess-v0 --out o --view windo", "unknown view 'windo'; did you mean 'window'"),
        pytest.param("eval ./nowhere lab/Guess-v0 --out o --view {kind:", "the value of --view is not valid YAML"),
        ("train e.yaml --env.view '{kind: window, pair: 2}'", "view 'window' has no parameter 'pair'; did you mean 'pairs'"),
        ("rollout ./nowhere lab/Guess-v0 --out o --max-turns 0", "max_turns must be at least 1, not 0"),
        ("rollout ./nowhere lab/Guess-v0 --out o --max-tokens 0", "max_tokens must be at least 1, not 0"),
        ("rollout ./nowhere lab/Guess-v0 --out o --temperature=-1", "temperature must be at least 0, not -1.0"),
        ("rollout ./nowhere lab/Guess-v0 --out o --tasks=-3", "arguments: tasks must be at least 1, not -3"),
        ("eval ./nowhere lab/Guess-v0 --out o --tasks 0", "tasks must be at least 1, not 0"),
        ("eval ./nowhere lab/Guess-v0 --out o --samples 0 --temperature 1", "samples must be at least 1, not 0"),
        ("eval ./nowhere lab/Guess-v0 --out o --samples 2", "2 samples of a task at temperature 0"),
        ("eval ./nowhere lab/Guess-v0 --out o --split trian", "has no split 'trian'; did you mean 'train'?"),
        ("eval ./nowhere lab/Guess-v0 --out o --tasks 501", "has 500 tasks, fewer than the 501 asked for"),
        ("eval ./nowhere lab/Guess-v0 --out ''", "out is empty"),
        ("rollout ./nowhere lab/Guess-v0 --out ''", "out is empty"),
        ("train e.yaml --out ''", "out is empty"),
        ("sft e.yaml --out ''", "no teacher.sft section"),
        ("sft e.yaml --role student --out ''", "out is empty"),
        ("report ''", "empty"),
        ("report empty --out ''", "empty"),
        ("train e.yaml --name ../../zz", "name must be the name of one folder"),
        ("train e.yaml --method '{preset: [sod]}'", "method.preset must be the name of one preset, not ['sod']"),
        ("train e.yaml --train.betas '[0.9, 1.0]'", "train.betas must be less than 1, not 1.0"),
        ("train e.yaml --eval.samples 3", "3 samples of a task at temperature 0"),
        ("train twice.yaml", "'seed' stands twice in one mapping, at lines 1 and 2"),
        ("train cycle.yaml", "the anchor at line 1 contains itself"),
        ("report", "run"),
        ("report none", "none"),
        ("report empty", "empty"),
    ],
)
def test_a_mistake_is_one_sentence_on_stderr_and_exit_code_1(
    words: str, says: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(shlex.split(words), capsys)
    lines = err.strip().splitlines()
    assert code == 1, err
    assert len([line for line in lines if line.startswith("agentdistill: ")]) == 1
    assert lines[-1].startswith("agentdistill: ")
    assert says in lines[-1]
    assert "this is a bug" not in err


@pytest.mark.parametrize(
    "words",
    [[], ["trian", "e.yaml"], ["train"], ["eval", "m", "e"], ["eval", "m", "e", "--out", "o", "--tasks", "many"]],
    ids=lambda words: " ".join(words) or "nothing",
)
def test_words_that_fit_no_verb_end_with_exit_code_2(words: list[str], file: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(words, capsys)
    assert code == 2
    assert err.strip()


def test_a_mistaken_command_leaves_no_run_folder(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["train", file, "--train.lrr", "3"], ["train", file, "--student.model", "tiny:huge"]):
        assert run(words, capsys)[0] == 1
    assert not (tmp_path / "runs").exists()


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["--help"], capsys)
    assert code == 0
    assert all(verb in out for verb in ("train", "sft", "rollout", "eval", "envs", "report"))


def test_help_calls_what_a_verb_takes_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    takes = {"train": "EXPERIMENT", "rollout": "MODEL ENV", "eval": "MODEL [ENV]", "replay": "RUN", "view": "RUN",
             "panel": "ENV", "compare": "FIRST SECOND",
             "show": "RESULT", "import": "FILE...", "export": "RUN", "report": "RUN..."}  # fmt: skip
    for verb, words in takes.items():
        assert words in run([verb, "--help"], capsys)[1].splitlines()[0], verb


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"], capsys) == (0, f"agentdistill {__version__}\n", "")


def test_envs_lists_what_is_registered_and_shows_one(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["envs"], capsys)
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert lines["environment"].split(maxsplit=2) == ["environment", "source", "can run here"]
    assert [cell.strip() for cell in lines["agentdistill/Arithmetic-v0"].split("  ") if cell] == [
        "agentdistill/Arithmetic-v0", "built in", "yes"
    ]  # fmt: skip
    code, out, _ = run(["envs", "lab/Guess-v0", "--options", "{size: 4}"], capsys)
    shown = json.loads(out)
    assert code == 0
    assert (shown["id"], shown["expert"], shown["observation"]) == ("lab/Guess-v0", True, "0 to 3")
    assert shown["tasks"] == {"train": 10000, "valid": 200, "test": 500}


def test_a_dry_run_resolves_the_overrides_and_writes_nothing(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(["train", file, "--dry-run", "--train.lr", "1e-6", "--name=mine"], capsys)
    assert code == 0, err
    assert "lr: 1.0e-06" in out
    assert "name: mine" in out
    assert not (tmp_path / "runs").exists()


STOPS = "import os, signal\nos.kill(os.getpid(), signal.{name})\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train e.yaml --env.module stop.py", "stopped; go on from the last checkpoint with --resume"),
        ("sft e.yaml --role student --env.module stop.py", "stopped; go on from the last checkpoint with --resume"),
        ("train e.yaml --dry-run --env.module stop.py", "stopped"),
        ("rollout tiny:xs lab/Guess-v0 --out o --module stop.py", "stopped"),
        ("eval tiny:xs lab/Guess-v0 --out o --module stop.py", "stopped"),
        ("envs --module stop.py", "stopped"),
    ],
)
def test_a_stop_is_one_line_that_names_resume_where_there_is_one(
    words: str, says: str, name: str, file: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stop.py").write_text(STOPS.format(name=name))
    before = signal.getsignal(signal.SIGINT)
    assert main(shlex.split(words)) == 130
    assert capfd.readouterr().err == f"\nagentdistill: {says}\n"
    assert signal.getsignal(signal.SIGINT) is before


TWICE = "import os, signal\ntry:\n    os.kill(os.getpid(), 2)\nfinally:\n    os.kill(os.getpid(), 2)\n"
# Sends Ctrl-C at the moment when a module is looked for, as the installed command would meet it.
WHILE_IMPORTING = """
import os, runpy, sys
class Finder:
    def find_spec(self, name, *rest):
        if name == {name!r}:
            os.kill(os.getpid(), 2)
sys.meta_path.insert(0, Finder())
sys.argv = ["agentdistill", *{words!r}]
from agentdistill import __version__, environment
from agentdistill.cli import main
from agentdistill.fields import rows
sys.exit(main())
"""


def stopped(code: str, folder: Path) -> tuple[int, str]:
    """Exit code and stderr of a Python program."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", ["gymnasium", "tyro", "torch"])
def test_ctrl_c_while_libraries_are_imported_is_one_line(name: str, tmp_path: Path) -> None:
    code = WHILE_IMPORTING.format(name=name, words=["envs"])
    assert stopped(code, tmp_path) == (130, "\nagentdistill: stopped\n")


def test_a_second_ctrl_c_ends_the_command_at_once_with_the_same_line(tmp_path: Path) -> None:
    (tmp_path / "stop.py").write_text(TWICE)
    code = WHILE_IMPORTING.format(name="", words=["envs", "--module", "stop.py"])
    assert stopped(code, tmp_path) == (130, "\nagentdistill: stopped\n")


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m agentdistill.cli train --help | true"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""


def test_help_of_train_lists_every_field_of_an_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("train", "sft"):
        code, out, _ = run([verb, "--help"], capsys)
        assert code == 0
        assert all(f"--{row.name}  {row.kind}" in out for row in rows())
        assert "peak learning rate" in out


def test_a_users_module_is_seen_by_the_verbs_that_play(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "games.py").write_text(
        "import agentdistill as ad\n\n@ad.register('lab/Mine-v0')\nclass Mine(ad.TextEnv):\n"
        "    def reset(self, *, seed=None, options=None):\n        return 'go', {}\n"
    )
    try:
        assert run(["envs", "lab/Mine-v0"], capsys)[0] == 1
        for verb in ("eval", "rollout"):  # the environment is found, and then the model is not
            words = [verb, "./nowhere", "lab/Mine-v0", "--out", "o", "--module"]
            assert "there is no model folder './nowhere'" in run([*words, "games.py"], capsys)[2]
            assert "env.module 'gone.py' does not exist" in run([*words, "gone.py"], capsys)[2]
            environment.unregister("lab/Mine-v0")
            for name in [name for name in sys.modules if "_games_" in name]:
                del sys.modules[name]
        code, out, _ = run(["envs", "lab/Mine-v0", "--module", "games.py"], capsys)
        assert (code, json.loads(out)["observation"]) == (0, "go")
        assert "lab/Mine-v0" in run(["envs", "--module", "games.py"], capsys)[1]
    finally:
        environment.unregister("lab/Mine-v0")


def test_a_full_disk_under_the_output_is_one_sentence() -> None:
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "agentdistill.cli", "envs"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "there is no space left where the output goes" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_of_plain_ascii_gets_question_marks_and_no_traceback() -> None:
    words = [sys.executable, "-m", "agentdistill.cli", "train", "--help"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--train.lr" in done.stdout
