"""`agentdistill view` and `ad.view`: where the page goes, and what is refused."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import agentdistill as ad
from agentdistill.cli import main
from agentdistill.errors import UserError
from agentdistill.store import Store
from agentdistill.viewer import open_source
from agentdistill.viewer.derive import derive
from agentdistill.viewer.encode import task_type
from tests.viewer.conftest import Stored


def test_the_command_writes_one_file_that_needs_nothing_from_anywhere(stored: Stored, tmp_path: Path, capsys):
    assert (
        main(["view", str(stored.folder), "--out", str(tmp_path / "deep" / "look.html"), "--batch", "eval-after", "tools"]) == 0
    )
    page = Path(capsys.readouterr().out.strip())
    assert page == tmp_path / "deep" / "look.html"
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?!#|data:)[a-z]+:", re.sub(r"(?s)<script.*?</script>", "", text))
    assert "default-src &#x27;none&#x27;" in text
    assert [each.name for each in page.parent.iterdir()] == ["look.html"]


def test_the_module_of_the_verbs_name_can_be_called_and_still_imported(stored: Stored, tmp_path: Path):
    from agentdistill.view import VIEWS, Record  # how an episode is shown to an agent

    assert "chat" in VIEWS.names()
    assert Record.__module__ == "agentdistill.view"
    assert ad.view(stored.folder, batch="tools", out=tmp_path) == tmp_path / "viewer.html"
    assert (tmp_path / "viewer.html").is_file()


REFUSED = {
    "two ways": ({"serve": True, "text": True}, "choose one"),
    "out and serve": ({"serve": True, "out": "x.html"}, "--out is for the page, which --serve does not write"),
    "out and text": ({"text": True, "out": "x.html"}, "--out is for the page, which --text does not write"),
    "port alone": ({"port": 8000}, "--port is for --serve"),
    "outcome alone": ({"success": True}, "--outcome is for --text"),
    "trajectory alone": ({"trajectory": "x"}, "--trajectory is for --text"),
    "no limit": ({"text": True, "limit": 0}, "must be at least 1"),
    "empty out": ({"out": ""}, "name an .html file"),
    "unknown batch": ({"batch": "eval-aftr"}, "no batch 'eval-aftr'; did you mean 'eval-after'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_or_is_not_there_is_refused(stored: Stored, case: str):
    options, words = REFUSED[case]
    with pytest.raises(UserError, match=re.escape(words)):
        ad.view(stored.folder, **options)


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys):
    assert main(["view", str(tmp_path / "nothing")]) == 1
    assert "there is no run folder" in capsys.readouterr().err
    assert main(["view", str(tmp_path)]) == 1
    assert "holds no trajectories" in capsys.readouterr().err


def test_a_damaged_batch_is_told_and_the_others_are_shown(stored: Stored, tmp_path: Path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(stored.folder, folder, ignore=shutil.ignore_patterns("*.html", "checkpoints"))
    file = folder / "store" / "iter-000001.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    before = {path: path.read_bytes() for path in (folder / "store").rglob("*") if path.is_file()}
    assert main(["view", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "note: " in said
    assert "iter-000001" in said
    assert (folder / "viewer.html").is_file()
    assert {path: path.read_bytes() for path in (folder / "store").rglob("*") if path.is_file()} == before


def test_an_interrupted_write_leaves_the_earlier_page(stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = ad.view(stored.folder, batch="tools", out=tmp_path / "page.html")
    before = page.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"could not be written to .*page\.html.*No space left"):
        ad.view(stored.folder, out=page)
    assert page.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]


def test_the_kind_of_a_task_is_the_stored_one_or_its_ids_beginning(stored: Stored):
    item = stored.get("ViewedUnits-v0/0001")
    assert task_type(item) == "hard"
    guess = stored.get("iter-000002/0001")
    assert guess.task_type == ""
    assert task_type(guess) == "guess"


def test_the_teacher_is_the_one_of_training_and_nobody_where_nothing_was_trained(stored: Stored, tmp_path: Path):
    assert open_source(stored.folder, ["eval-after"]).teacher == "tiny:32x2"
    Store(tmp_path / "store").write("rollout", [stored.get("ViewedUnits-v0/0001")])
    assert open_source(tmp_path).teacher is None


def test_pairs_of_scorers_that_provenance_is_not_worked_out_for_are_told(stored: Stored):
    item, notes = stored.get("ViewedUnits-v0/0002"), list[str]()
    (found,) = derive([item], None, None, notes.append)
    assert len(found.provenance) == 12
    assert notes == []
    (found,) = derive([replace(item, scores={**item.scores, "more": item.scores["sure"]})], None, None, notes.append)
    assert len(found.provenance) == 12
    assert notes == ["Provenance is worked out for the first 12 of 20 pairs of scorers."]
