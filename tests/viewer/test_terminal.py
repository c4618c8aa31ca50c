"""`agentdistill view --text`: trajectories in a terminal, and in a log file without colour."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from agentdistill.cli import main
from agentdistill.errors import UserError
from agentdistill.viewer import Selection, open_source, show
from agentdistill.viewer.encode import gaps
from agentdistill.viewer.terminal import style
from tests.viewer import stored_run
from tests.viewer.conftest import Stored

TRAINED = "iter-000002/0001"


def printed(folder: Path, chosen: Selection, *, batches: tuple[str, ...] = (), colour: bool = False) -> str:
    console = Console(
        file=io.StringIO(), soft_wrap=True, highlight=False, emoji=False, markup=False, force_terminal=colour, width=80,
        color_system="truecolor" if colour else None, no_color=not colour,
    )  # fmt: skip
    show(open_source(folder, batches), chosen, console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_a_log_file_gets_kl_by_turn_weights_what_was_said_and_the_stop_reason(stored: Stored):
    item = stored.get(TRAINED)
    said = printed(stored.folder, Selection([TRAINED]))
    assert "\x1b" not in said
    kl = [float(np.mean(values)) for values in gaps(item, item.scores["tiny:32x2"])]
    line = next(each for each in said.splitlines() if each.startswith("KL by turn"))
    assert [float(number) for number in line.split()[4:]] == pytest.approx(kl, abs=6e-3)
    assert "depth 3" in said
    for k in range(3):
        assert re.search(
            rf"^turn {k + 1} · student · KL {re.escape(f'{kl[k]:.3f}')} · SOD weight \d\.\d\d$", said, re.MULTILINE
        )
    assert "furthest: “" in said
    assert "✗ failure after 3 turns: the curriculum's depth for this iteration." in said
    assert "Guess the number." in said


def test_tokens_are_shaded_by_their_divergence(stored: Stored):
    item = stored.get("ViewedUnits-v0/0001")
    said = printed(stored.folder, Selection([item.id], scorer="other"), colour=True)
    assert (
        said.count("48;2;238;138;54m") > item.n_action_tokens / 2
    )  # the deepest orange: a scripted agent is sure of all it says
    assert [style(value) for value in (0.01, float("nan"))] == [None, None]
    assert style(0.05) != style(0.2) != style(-0.2) != style(-9)
    assert style(float("inf")) == style(4)


def test_the_scorer_is_the_teacher_of_the_run_or_the_one_that_is_named(stored: Stored):
    assert "scorer tiny:32x2, mean KL" in printed(stored.folder, Selection([TRAINED]))
    assert "scorer other, mean KL" in printed(stored.folder, Selection([TRAINED], scorer="other"))


def test_trajectories_are_chosen_by_id_batch_and_outcome_and_the_rest_is_counted(stored: Stored):
    won = [item.id for _, item in stored.items if item.success]
    assert won
    said = printed(stored.folder, Selection(success=True, limit=1))
    assert f"── {won[0]} ──" in said
    assert said.count("── ") == 1
    if len(won) > 1:
        assert f"{len(won) - 1} more of {len(stored.items)}" in said
    said = printed(stored.folder, Selection(limit=99), batches=("tools",))
    assert re.findall(r"^── (.*) ──$", said, re.MULTILINE) == [item.id for batch, item in stored.items if batch == "tools"]
    assert "tool error convert" in said
    assert "more of" not in said


def test_hostile_text_cannot_speak_to_the_terminal(stored: Stored):
    said = printed(stored.folder, Selection(limit=9), batches=("hostile",))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", said)
    assert "␛[31m␀" in said
    assert stored_run.SCRIPT in said
    assert "characters left out" in said
    assert len(said) < 50_000


def test_what_is_not_there_is_refused_by_name(stored: Stored):
    with pytest.raises(UserError, match="no trajectory 'iter-000002/000l'; did you mean 'iter-000002/000"):
        printed(stored.folder, Selection(["iter-000002/000l"]))
    with pytest.raises(UserError, match="no scores of 'othr'; did you mean 'other'"):
        printed(stored.folder, Selection(scorer="othr"))
    with pytest.raises(UserError, match="none of the 3 trajectories"):
        printed(stored.folder, Selection(success=True), batches=("hostile",))


def test_a_name_that_nobody_scored_under_gets_each_known_one_once(stored: Stored):
    with pytest.raises(UserError) as refused:
        printed(stored.folder, Selection(scorer="zzzzzz"))
    assert str(refused.value).count("student") == 1


def test_what_nobody_has_scored_says_so_and_how_to_mend_it(stored: Stored, tmp_path: Path):
    folder = tmp_path / "unscored"
    shutil.copytree(stored.folder, folder, ignore=shutil.ignore_patterns("scores", "page.html"))
    said = printed(folder, Selection(limit=1), batches=("eval-after",))
    assert "eval-after: no scores to compare with" in said
    assert "--scorer NAME=MODEL" in said
    assert "no scores to compare with" not in printed(folder, Selection([TRAINED]))


def test_the_legend_of_shades_stands_only_where_there_are_shades(stored: Stored):
    assert "student − scorer" in printed(stored.folder, Selection([TRAINED]), colour=True)
    assert "student − scorer" not in printed(stored.folder, Selection([TRAINED]))


def test_a_reader_that_goes_away_is_no_failure(stored: Stored):
    command = (
        f"{shlex.quote(sys.executable)} -m agentdistill.cli view {shlex.quote(str(stored.folder))} --text --limit 99 | true"
    )
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_prints(stored: Stored, capsys: pytest.CaptureFixture[str]):
    assert main(["view", str(stored.folder), "--text", "--trajectory", TRAINED, "--scorer", "other"]) == 0
    said = capsys.readouterr().out
    assert f"── {TRAINED} ──" in said
    assert "scorer other" in said
