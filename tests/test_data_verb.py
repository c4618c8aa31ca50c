"""`agentdistill data`, on a data set that the tests register: the verb knows none by name."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import agentdistill as ad
from agentdistill.cli import main
from agentdistill.datasets import (
    Check,
    Contents,
    DataSet,
    Job,
    Made,
    data_import,
    data_list,
    data_verify,
    install,
    register_dataset,
    unregister_dataset,
)
from agentdistill.errors import UserError

BUILT_IN = {"alfworld", "code", "math", "webshop"}
MODULE = """
import os, signal
from pathlib import Path
from agentdistill.datasets import Check, Contents, DataSet, Job, Made, register_dataset

def imported(job: Job, upper: bool = False) -> Made:
    rows, origins = {}, []
    for source in map(Path, job.sources):
        words = source.read_text().split()
        (job.folder / source.name).write_text("\\n".join(words).upper() if upper else "\\n".join(words))
        rows[source.name] = len(words)
        origins.append((str(source), (source,)))
        if "KILL" in words:
            os.kill(os.getpid(), signal.SIGKILL)
        if "WRONG" in words:
            raise UserError(f"'{source}' is wrong")
    return Made(rows, tuple(origins))

def count(folder: Path) -> Contents:
    files = sorted(folder.glob("*.txt"))
    lacks = () if (folder / "b.txt").exists() else ("b.txt",)
    return Contents({each.stem: len(each.read_text().split()) for each in files}, lacks)

def verify(folder: Path, sample):
    for file in sorted(folder.glob("*.txt")):
        words = file.read_text().split()[:sample]
        yield Check(f"words of {file.stem} are lower", len(words), tuple(each for each in words if not each.islower()))
        if "crash" in words:
            raise KeyError("crash")

from agentdistill.errors import UserError
register_dataset("lab_words", DataSet(
    name="lab_words", about="Words.", licence="None.", download="a.txt of the words project", sources="path/to/a.txt",
    importer=imported, count=count, verifier=verify))
"""


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that AGENTDISTILL_DATA names, with `lab_words` registered, and sources beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.py").write_text(MODULE)
    for name, text in {"a": "one two", "b": "three", "bad": "x WRONG", "kill": "x KILL", "capital": "Four"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("AGENTDISTILL_DATA", str(tmp_path / "data"))
    ad.data_list(module="words.py")
    yield tmp_path / "data"
    unregister_dataset("lab_words")


def lines(run: Callable[..., object], *names: str, **options: object) -> list[str]:
    """What a verb says."""
    said: list[str] = []
    run(*names, say=said.append, **options)
    return said


def test_without_data_every_set_is_listed_with_the_one_command_that_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTDISTILL_DATA", raising=False)
    found = {info.name: info for info in data_list()}
    assert set(found) >= BUILT_IN
    for name in BUILT_IN:
        info = found[name]
        assert (info.state, info.folder, info.bytes) == ("missing", None, 0)
        (remedy,) = info.remedies
        assert remedy.startswith("download ")
        assert f"then run: agentdistill data import {name} " in remedy
        assert f"${'AGENTDISTILL_DATA'}/{name}" in str(info)
        assert info.licence in str(info)


def test_an_import_writes_a_manifest_of_its_files_and_of_what_they_were_made_from(top: Path) -> None:
    (said,) = lines(data_import, "lab_words", "a.txt", "b.txt")
    assert said == f"lab_words: a 2, b 1; in {top / 'lab_words'}"
    told = json.loads((top / "lab_words" / "manifest.json").read_text())
    digests = {name: hashlib.sha256((top / "lab_words" / name).read_bytes()).hexdigest() for name in ("a.txt", "b.txt")}
    assert told["files"] == {
        "a.txt": {"sha256": digests["a.txt"], "bytes": 7, "rows": 2},
        "b.txt": {"sha256": digests["b.txt"], "bytes": 5, "rows": 1},
    }
    assert told["importer"] == f"agentdistill {ad.__version__}, lab_words 1"
    assert told["tasks"] == {"a": 2, "b": 1}
    source = hashlib.sha256(Path("a.txt").read_bytes()).hexdigest()
    assert told["made_from"][0] == {"path": "a.txt", "files": 1, "bytes": 7, "sha256": source}
    info = next(each for each in data_list() if each.name == "lab_words")
    assert (info.state, info.manifest, dict(info.tasks), info.remedies) == ("complete", True, {"a": 2, "b": 1}, ())


def test_what_a_folder_lacks_is_listed_and_does_not_count_as_damage(top: Path) -> None:
    assert lines(data_import, "lab_words", "a.txt") == [f"lab_words: a 2; in {top / 'lab_words'}; without b.txt"]
    info = next(each for each in data_list() if each.name == "lab_words")
    assert (info.state, info.notes) == ("incomplete", ("lacks b.txt",))
    assert info.remedies == ("download a.txt of the words project, then run: agentdistill data import lab_words path/to/a.txt",)
    assert lines(data_verify, "lab_words")[0].startswith("lab_words: sound; 1 files as in the manifest; lacks b.txt; 2 of 2 ")


def test_a_wrong_source_is_refused_and_leaves_nothing_behind(top: Path) -> None:
    with pytest.raises(UserError, match=r"^'bad.txt' is wrong$"):
        data_import("lab_words", "a.txt", "bad.txt")
    assert list(top.iterdir()) == []


def test_what_is_there_is_replaced_only_by_force_and_only_by_what_is_complete(top: Path) -> None:
    data_import("lab_words", "a.txt")
    with pytest.raises(UserError, match="is there already; --force replaces it once the new one is complete"):
        data_import("lab_words", "b.txt")
    with pytest.raises(UserError, match="is wrong"):
        data_import("lab_words", "b.txt", "bad.txt", force=True)
    assert [path.name for path in top.iterdir()] == ["lab_words"]
    assert sorted(path.name for path in (top / "lab_words").iterdir()) == ["a.txt", "manifest.json"]
    data_import("lab_words", "b.txt", force=True)
    assert [path.name for path in top.iterdir()] == ["lab_words"]
    assert sorted(path.name for path in (top / "lab_words").iterdir()) == ["b.txt", "manifest.json"]


def test_an_import_that_is_killed_between_files_leaves_the_old_data_and_the_next_one_clears_up(top: Path) -> None:
    data_import("lab_words", "a.txt")
    words = [sys.executable, "-c", "import words; from agentdistill.datasets import data_import as d; "
             "d('lab_words', 'b.txt', 'kill.txt', 'a.txt', force=True)"]  # fmt: skip
    done = subprocess.run(words, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join([".", *sys.path])})
    assert done.returncode == -signal.SIGKILL
    (left,) = [path for path in top.iterdir() if path.name != "lab_words"]
    assert {path.name for path in left.iterdir()} == {"b.txt", "kill.txt"}
    assert lines(data_verify, "lab_words") == [
        "lab_words: sound; 1 files as in the manifest; lacks b.txt; 2 of 2 words of a are lower"
    ]
    data_import("lab_words", "b.txt", force=True)
    assert [path.name for path in top.iterdir()] == ["lab_words"]


def test_an_import_that_is_under_way_elsewhere_is_left_alone(top: Path) -> None:
    (other := top / ".lab_words-part-other").mkdir()
    with install._held(other):
        data_import("lab_words", "a.txt")
        assert other.is_dir()
    data_import("lab_words", "a.txt", force=True)
    assert not other.exists()


def test_folders_are_exchanged_where_the_system_cannot_do_it_in_one_step(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_import("lab_words", "a.txt")
    monkeypatch.setattr(install.ctypes, "CDLL", lambda name: object())
    data_import("lab_words", "b.txt", force=True)
    assert [path.name for path in top.iterdir()] == ["lab_words"]
    assert (top / "lab_words" / "b.txt").exists()


def test_a_link_is_replaced_and_what_it_names_is_kept(top: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.txt").write_text("mine")
    (top / "lab_words").symlink_to(tmp_path / "elsewhere")
    data_import("lab_words", "a.txt", force=True)
    assert not (top / "lab_words").is_symlink()
    assert (tmp_path / "elsewhere" / "mine.txt").read_text() == "mine"
    assert [path.name for path in top.iterdir()] == ["lab_words"]


def test_an_import_that_makes_no_task_is_refused_and_writes_nothing(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (top.parent / "b.txt").write_text("\n")
    (top.parent / "c.txt").write_text("")
    assert main(["data", "import", "lab_words", "c.txt"]) == 1
    error = "there is no task of 'lab_words' in 'c.txt' alone: it lacks b.txt; name what is lacking as well"
    assert error in capsys.readouterr().err
    with pytest.raises(UserError, match=r"there is no task of 'lab_words' in 'b.txt', 'c.txt'; name a file that holds some"):
        data_import("lab_words", "b.txt", "c.txt")
    assert not list(top.iterdir())


def test_files_are_added_and_one_that_is_there_is_replaced_by_force_only(top: Path) -> None:
    data_import("lab_words", "a.txt", add=True)
    data_import("lab_words", "b.txt", add=True)
    told = json.loads((top / "lab_words" / "manifest.json").read_text())
    assert {name: file["rows"] for name, file in told["files"].items()} == {"a.txt": 2, "b.txt": 1}
    assert [each["path"] for each in told["made_from"]] == ["a.txt", "b.txt"]
    Path("a.txt").write_text("five six seven")
    with pytest.raises(UserError, match=r"lab_words/a.txt' is there already; --add --force replaces it"):
        data_import("lab_words", "a.txt", add=True)
    data_import("lab_words", "a.txt", add=True, force=True)
    assert lines(data_verify, "lab_words")[0].startswith("lab_words: sound; 2 files as in the manifest; 3 of 3 words of a")


def test_options_reach_the_importer_and_an_unknown_one_is_refused(top: Path) -> None:
    with pytest.raises(UserError, match="importing 'lab_words' has no option 'uper'; did you mean 'upper'"):
        data_import("lab_words", "a.txt", options={"uper": True})
    data_import("lab_words", "a.txt", options={"upper": True})
    assert (top / "lab_words" / "a.txt").read_text() == "ONE\nTWO"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("data import lab_word a.txt", "there is no data set 'lab_word'; did you mean 'lab_words'?"),
        ("data import lab_words", "name what 'lab_words' is to be imported from: download a.txt of the words project"),
        ("data import lab_words a.txt --to a.txt", "'a.txt/lab_words' cannot be written"),
        ("data import lab_words a.txt --options [", "--options"),
        ("data import lab_words bad.txt", "'bad.txt' is wrong"),
        ("data verify lab_word", "did you mean 'lab_words'?"),
        ("data verify --sample 0", "--sample is 0 but must be at least 1"),
        ("data verify", "there is no data set below"),
        ("data verify lab_words", "1 of 1 data sets failed: lab_words"),
    ],
)
def test_every_mistake_ends_in_one_sentence(top: Path, words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 1
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_an_import_that_fails_leaves_no_folder_that_it_made(top: Path, tmp_path: Path) -> None:
    (there := tmp_path / "there").mkdir()
    for to in (there / "new" / "newer", there):
        with pytest.raises(UserError, match=r"'bad\.txt' is wrong"):
            data_import("lab_words", "bad.txt", to=to)
        assert list(there.iterdir()) == []
    data_import("lab_words", "a.txt", to=there / "new" / "newer")
    assert (there / "new" / "newer" / "lab_words" / "a.txt").is_file()


def test_without_a_place_for_data_it_is_asked_for(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTDISTILL_DATA")
    with pytest.raises(UserError, match=r"set AGENTDISTILL_DATA to the folder where data sets are to lie, or .* --to"):
        data_import("lab_words", "a.txt")
    with pytest.raises(UserError, match=r"set AGENTDISTILL_DATA to the folder where the data sets lie, or .* --at"):
        data_verify()


def test_the_command_imports_lists_and_verifies_in_another_place(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "import", "lab_words", "a.txt", "b.txt", "--to", "other", "--module", "words.py"]) == 0
    assert main(["data", "list", "--at", "other"]) == 0
    assert main(["data", "verify", "lab_words", "--at", "other", "--sample", "1"]) == 0
    said = capsys.readouterr().out
    assert "lab_words: complete, 0.0 MB, other/lab_words\n  Words. Licence: None.\n  tasks: a 2, b 1\n" in said
    assert "lab_words: sound; 2 files as in the manifest; 1 of 1 words of a are lower; 1 of 1 words of b are lower\n" in said
    assert list(top.iterdir()) == []


def test_one_flipped_byte_is_found_by_verify_though_not_by_list(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_import("lab_words", "a.txt", "b.txt")
    path = top / "lab_words" / "a.txt"
    data = bytearray(path.read_bytes())
    data[1] ^= 1
    path.write_bytes(data)
    assert main(["data", "verify"]) == 1
    captured = capsys.readouterr()
    assert "lab_words: FAILED; a.txt has another SHA-256 than in the manifest; 2 of 2" in captured.out
    assert captured.err == "agentdistill: 1 of 5 data sets failed: lab_words\n"
    path.write_bytes(data + b"x")
    assert next(each for each in data_list() if each.name == "lab_words").notes == ("a.txt has 8 bytes, not 7",)
    path.unlink()
    info = next(each for each in data_list() if each.name == "lab_words")
    assert (info.state, info.notes) == ("damaged", ("a.txt is missing",))


def test_verify_names_what_failed_and_says_where_there_is_no_manifest(top: Path) -> None:
    data_import("lab_words", "capital.txt", "b.txt")
    (top / "lab_words" / "manifest.json").unlink()
    (verdict,) = data_verify("lab_words", say=lambda line: None)
    assert not verdict.sound
    assert str(verdict) == (
        "lab_words: FAILED; no manifest, so no checksums; 1 of 1 words of b are lower; 0 of 1 words of capital are lower "
        "(not: Four)"
    )


def test_a_verifier_that_falls_over_is_a_failure_with_what_was_found_before(top: Path) -> None:
    Path("a.txt").write_text("crash")
    data_import("lab_words", "a.txt")
    (line,) = lines(data_verify, "lab_words")
    assert line.startswith("lab_words: FAILED; cannot be checked: KeyError: 'crash'; ")
    assert line.endswith("; 1 of 1 words of a are lower")


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "is damaged"), ("{}", "data_set: Field required"), ('{"format": 2}', "data_set"), (b"\xff", "is damaged")],
)
def test_a_damaged_manifest_is_named(top: Path, content: str | bytes, says: str) -> None:
    data_import("lab_words", "a.txt")
    path = top / "lab_words" / "manifest.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (line,) = lines(data_verify, "lab_words")
    assert line.startswith(f"lab_words: FAILED; '{path}' is damaged")
    assert says in line
    assert next(each for each in data_list() if each.name == "lab_words").state == "damaged"


def test_a_manifest_of_a_newer_format_is_told(top: Path) -> None:
    data_import("lab_words", "a.txt")
    path = top / "lab_words" / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    assert "is of format 2, and this version reads format 1" in lines(data_verify, "lab_words")[0]


def test_what_a_verifier_needs_of_the_machine_is_a_failure_and_not_silence(top: Path) -> None:
    def never(job: Job) -> Made:
        raise AssertionError

    def played(folder: Path, sample: int | None) -> list[Check]:
        raise AssertionError

    register_dataset("lab_needy", DataSet(
        name="lab_needy", about="", licence="", download="", sources="", importer=never, count=lambda folder: Contents({}),
        verifier=played, requires=(lambda: "needs a piano: buy one",)))  # fmt: skip
    try:
        (top / "lab_needy").mkdir()
        assert lines(data_verify, "lab_needy") == [
            "lab_needy: FAILED; not played, it needs a piano: buy one; no manifest, so no checksums"
        ]
    finally:
        unregister_dataset("lab_needy")


def test_a_name_that_is_no_folders_is_refused() -> None:
    for name in ("", "../up", ".hidden", "a/b"):
        with pytest.raises(UserError, match="cannot be named"):
            register_dataset(name, "no:WHERE")


def test_a_data_set_that_cannot_be_loaded_spoils_no_other(top: Path) -> None:
    for entry, says in (
        ("no_such_module:DATA", "No module named"),
        ("json:loads", "is a function and no DataSet"),
    ):
        register_dataset("lab_broken", entry)
        try:
            found = {info.name: info for info in data_list()}
            assert (found["lab_broken"].state, found["lab_words"].state) == ("unknown", "missing")
            assert says in str(found["lab_broken"])
            with pytest.raises(UserError, match="the data set 'lab_broken' cannot be loaded"):
                data_import("lab_broken", "a.txt")
        finally:
            unregister_dataset("lab_broken")
