"""The tutorial, executed as a new user would: its blocks in order, in an empty folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, blocks
from tests.forking import Forks

BLOCKS = blocks("tutorial.md", (DOCS / "tutorial.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder after every block was followed, and what each command printed."""
    home, commands = tmp_path_factory.mktemp("tutorial"), []
    for number, block in enumerate(BLOCKS):
        if block.title:
            (home / block.title).write_text(block.text)
        elif block.language == "python":
            (home / f"block{number}.py").write_text(block.text)
            commands.append(["python", f"block{number}.py"])
        elif block.language == "bash":
            commands += block.commands
    assert all(words[0] in ("agentdistill", "python") for words in commands), "a command that nothing runs"
    printed = {}
    with Forks(home, undrawn=True) as forks:  # nobody looks at the pictures
        for words in commands:
            python = words[0] == "python"
            code, text = forks.run(words if python else words[1:])
            assert code == 0, f"{' '.join(words)}\n{text}"
            printed["python" if python else " ".join(words[1:])] = text
    assert len(printed) == len(commands)
    return home, printed


def said(printed: dict[str, str], beginning: str) -> str:
    return next(text for command, text in printed.items() if command.startswith(beginning))


def test_the_environment_takes_under_25_lines():
    code = next(block.text for block in BLOCKS if block.title == "guess.py")
    assert len([line for line in code.splitlines() if line.strip()]) < 25


def test_the_way_takes_every_verb_of_a_new_user(followed):
    _, printed = followed
    verbs = {command.split()[0] for command in printed}
    assert verbs >= {"envs", "train", "eval", "replay", "score", "view", "compare", "report", "python"}


def test_the_environment_is_found_and_begins_as_the_page_says(followed):
    _, printed = followed
    assert '"observation": "0 to 7"' in said(printed, "envs")


def test_training_brings_the_student_nearer_to_its_teacher(followed):
    home, _ = followed
    lines = [json.loads(line) for line in (home / "runs" / "guess" / "metrics.jsonl").read_text().splitlines()]
    kl = [line["kl"] for line in lines if line["kind"] == "iteration"]
    assert len(kl) == 20
    assert kl[-1] < kl[0]
    summary = json.loads((home / "runs" / "guess" / "summary.json").read_text())
    assert summary["after"]["n"] == summary["before"]["n"] == 100


def test_stored_episodes_repeat_themselves_and_the_teacher_takes_over(followed):
    import agentdistill as ad

    home, printed = followed
    replayed = said(printed, "replay").splitlines()
    assert replayed
    assert all(line.endswith(" 0 differ") for line in replayed)
    store = ad.load_run(home / "runs" / "branches")
    branches = store.read(store.batches()[0])
    assert branches
    assert all(each.parent.startswith("eval-before") and each.prefix_turns == 1 for each in branches)


def test_the_page_and_the_terminal_show_what_the_student_did(followed):
    home, printed = followed
    assert said(printed, "view runs/guess").strip() == "runs/guess/viewer.html"
    assert (home / "runs" / "guess" / "viewer.html").stat().st_size > 50_000
    assert "✗ failure after" in said(printed, "view runs/guess --text")


def test_a_second_teachers_scores_stand_beside_the_first_ones(followed):
    _, printed = followed
    assert "'final'" in printed["python"]
    assert "weight" in next(text for command, text in printed.items() if "--what-if" in command)


def test_two_evaluations_are_compared_in_pairs(followed):
    _, printed = followed
    verdicts = [text for command, text in printed.items() if command.startswith("compare")]
    assert len(verdicts) == 2
    assert all("pairs" in text or "tasks" in text for text in verdicts)
    print(verdicts)


def test_the_report_is_one_page(followed):
    home, printed = followed
    page = home / "runs" / "guess" / "report" / "index.html"
    assert said(printed, "report").strip().endswith("index.html")
    assert "<h1>" in page.read_text(encoding="utf-8")
