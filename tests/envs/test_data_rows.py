"""Data sets of rows, mathematics and code: official files in any shape become one form, and bad rows are named."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentdistill.datasets import data_import, data_list, data_verify
from agentdistill.envs.data import read_rows
from agentdistill.envs.math import MathPythonEnv
from agentdistill.errors import UserError
from tests.needs import needs, needs_data

SVAMP = [
    {"Body": f"A box holds {n} pens", "Question": "How many do two hold?", "Answer": 2.0 * n, "Equation": f"( {n} * 2.0 )"}
    for n in (3, 4, 5)
]
GSM8K = [
    {"question": "Two and two?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"},
    {"question": "Half a dollar in cents?", "answer": "It is $0.50\n#### 50"},
]


@pytest.fixture
def add(tmp_path: Path) -> Callable[..., Path]:
    """Imports sources into `tmp_path/data`, whatever there are of rows."""

    def into(name: str, *sources: str | Path, **options: Any) -> Path:
        return data_import(name, *sources, to=tmp_path / "data", **{"partial": True, **options})

    return into


def write(path: Path, rows: list[Any]) -> Path:
    """Rows as lines, or as an array where the name ends in `.json`; compressed where it ends in `.gz`."""
    array = path.name.removesuffix(".gz").endswith(".json")
    data = (json.dumps(rows, indent=2) if array else "\n\n".join(map(json.dumps, rows))).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["svamp.jsonl", "svamp_test.json", "SVAMP.json.gz", "SVAMP_test.jsonl.gz"])
def test_the_same_rows_in_any_shape_give_the_same_file(tmp_path: Path, add: Callable[..., Path], name: str) -> None:
    folder = add("math", write(tmp_path / name, SVAMP))
    assert (folder / "svamp_test.jsonl").read_text() == "".join(json.dumps(row) + "\n" for row in SVAMP)


def test_a_compressed_file_has_the_same_bytes_each_time(tmp_path: Path, add: Callable[..., Path]) -> None:
    source = f"gsm8k_train={write(tmp_path / 'train.jsonl', GSM8K)}"
    first = (add("math", source) / "gsm8k_train.jsonl.gz").read_bytes()
    assert (add("math", source, force=True) / "gsm8k_train.jsonl.gz").read_bytes() == first
    assert first[4:8] == bytes(4)  # where gzip keeps the time
    assert list(read_rows(tmp_path / "data" / "math" / "gsm8k_train.jsonl.gz")) == GSM8K


def test_the_data_in_this_folder_is_imported_whole_and_reads_the_same(tmp_path: Path) -> None:
    for name, files in {"math": ("gsm8k_train.jsonl.gz", "minerva_math.jsonl"), "code": ("HumanEval.jsonl.gz",)}.items():
        source = needs_data(name)
        folder = data_import(name, source, to=tmp_path / "data")
        assert all(list(read_rows(folder / file)) == list(read_rows(source / file)) for file in files)
    assert json.loads((folder / "sanitized-mbpp.json").read_text()) == json.loads((source / "sanitized-mbpp.json").read_text())
    found = {info.name: info for info in data_list(at=tmp_path / "data")}
    assert (found["math"].state, found["code"].state) == ("complete", "complete")
    assert found["math"].tasks["gsm8k train"] == 6973
    assert found["math"].tasks["gsm8k valid"] == 500
    assert dict(found["code"].tasks) == {
        "humaneval test": 164, "mbpp prompt": 7, "mbpp test": 257, "mbpp valid": 43, "mbpp train": 120
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "a"}, "it has no 'answer'"),
        ({"question": "a", "answer": "4"}, "its answer has no ####"),
        ({"question": "", "answer": "#### 4"}, "its question is empty"),
        ({"question": "a", "answer": "four\n#### "}, "its answer is ''"),
        ({"question": ["a"], "answer": "#### 4"}, "its question is empty"),
        ([], "TypeError"),
        (None, "TypeError"),
    ],
)
def test_a_bad_row_is_named_by_its_line_and_nothing_is_left(
    tmp_path: Path, add: Callable[..., Path], row: Any, message: str
) -> None:
    path = write(tmp_path / "x.jsonl", [GSM8K[0], row])
    with pytest.raises(UserError, match=f"line 3 of '{path}' is no row of gsm8k_test: .*{message}.*; download test.jsonl of "):
        add("math", f"gsm8k_test={path}")
    assert not (tmp_path / "data").exists()


def test_bad_rows_of_code_are_named_too(tmp_path: Path, add: Callable[..., Path]) -> None:
    needs_data("code")
    mbpp = {"task_id": 2, "prompt": "p", "code": "def f(): return 1", "test_imports": [], "test_list": ["assert g() == 1"]}
    with pytest.raises(
        UserError,
        match=r"entry 1 of .* is no row of mbpp_sanitized: ValueError: its tests call no function",
    ):
        add("code", write(tmp_path / "sanitized-mbpp.json", [mbpp]))
    human = {"task_id": "HumanEval/0", "prompt": "def f(", "entry_point": "g", "test": "", "canonical_solution": ""}
    with pytest.raises(UserError, match=r"line 1 of .* is no row of humaneval: ValueError: substring not found"):
        add("code", write(tmp_path / "HumanEval.jsonl.gz", [human]))


def test_damaged_and_cut_files_are_refused(tmp_path: Path, add: Callable[..., Path]) -> None:
    path = write(tmp_path / "svamp.jsonl", SVAMP)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"line 5 of '.*svamp.jsonl' is damaged"):
        add("math", path)
    packed = write(tmp_path / "svamp.jsonl.gz", SVAMP)
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"svamp.jsonl.gz' cannot be read"):
        add("math", packed)
    (tmp_path / "svamp.json").write_text('[{"Body": "a"')
    with pytest.raises(UserError, match=r"svamp.json' cannot be read: it is damaged"):
        add("math", tmp_path / "svamp.json")
    with pytest.raises(UserError, match=r"holds 3 rows and not svamp's 1,000; download .* or accept that with --partial"):
        add("math", write(tmp_path / "svamp.jsonl", SVAMP), partial=False)
    with pytest.raises(UserError, match="holds 0 rows"):
        add("math", write(tmp_path / "svamp.jsonl", []))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("train.jsonl", "the name of 'train.jsonl' does not say what it is; write part=train.jsonl, where part is gsm8k_train"),
        ("gsm8k_trian=train.jsonl", "the source .* names no part of the data set; did you mean 'gsm8k_train'"),
        ("gsm8k_train=none.jsonl", "there is no file 'none.jsonl' to import"),
        ("none.jsonl", "there is no file 'none.jsonl' to import"),
        ("empty", r"the folder 'empty' holds none of gsm8k_train.jsonl.gz, .*name files as part=path"),
    ],
)
def test_sources_that_cannot_be_told_are_asked_for(
    tmp_path: Path, add: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "train.jsonl", GSM8K)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        add("math", source)


def test_two_sources_of_one_part_are_refused(tmp_path: Path, add: Callable[..., Path]) -> None:
    path = write(tmp_path / "svamp.jsonl", SVAMP)
    with pytest.raises(UserError, match="are both given for svamp; choose one"):
        add("math", path, f"svamp={path}")


def test_files_are_added_one_by_one_and_what_lacks_is_told_with_its_command(
    tmp_path: Path, add: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("math_verify", "pip install 'agentdistill[math]'")
    add("math", f"gsm8k_test={write(tmp_path / 'test.jsonl', GSM8K)}")
    folder = add("math", write(tmp_path / "svamp.jsonl", SVAMP), add=True)
    assert sorted(path.name for path in folder.iterdir()) == ["gsm8k_test.jsonl", "manifest.json", "svamp_test.jsonl"]
    info = next(each for each in data_list(at=tmp_path / "data") if each.name == "math")
    assert info.state == "incomplete"
    assert "lacks 997 of svamp's 1,000 rows" in info.notes
    assert any(each.endswith("agentdistill data import math aime25=path/to/file --add") for each in info.remedies)
    monkeypatch.setenv("AGENTDISTILL_DATA", str(tmp_path / "data"))
    assert len(MathPythonEnv("svamp", tools=()).task_seeds("test")) == 3
    with pytest.raises(UserError, match="then run: agentdistill data import math aime25=path/to/file --add"):
        MathPythonEnv("aime25", tools=())


def test_a_forced_import_is_read_by_environments_made_later(
    tmp_path: Path, add: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("math_verify", "pip install 'agentdistill[math]'")
    monkeypatch.setenv("AGENTDISTILL_DATA", str(tmp_path / "data"))
    for rows in (SVAMP, SVAMP[:2]):
        add("math", write(tmp_path / "svamp.jsonl", rows), force=True)
        assert len(MathPythonEnv("svamp", tools=()).task_seeds("test")) == len(rows)


def test_verify_finds_a_wrong_reference(tmp_path: Path, add: Callable[..., Path]) -> None:
    needs("math_verify", "pip install 'agentdistill[math]'")
    math500 = [{"problem": "1/2?", "solution": r"It is $\boxed{\frac12}$.", "answer": r"\frac{1}{2}"}]
    sources = {"svamp": SVAMP, "gsm8k_test": GSM8K, "math500": math500}
    folder = add("math", *(f"{part}={write(tmp_path / f'{part}.jsonl', rows)}" for part, rows in sources.items()))
    (verdict,) = data_verify("math", at=tmp_path / "data", say=lambda line: None)
    assert verdict.sound
    assert [check.tried for check in verdict.checks] == [2, 2, 1, 1, 3, 3]
    wrong = {
        "svamp_test.jsonl": [*SVAMP[:2], SVAMP[2] | {"Answer": 11.0}],
        "gsm8k_test.jsonl": [GSM8K[0] | {"answer": GSM8K[0]["answer"].replace("#### 4", "#### 5")}, GSM8K[1]],
        "math500_test.jsonl": [math500[0] | {"answer": "2"}],
    }
    for name, rows in wrong.items():
        write(folder / name, rows)
    (folder / "manifest.json").unlink()
    (verdict,) = data_verify("math", at=tmp_path / "data", say=lambda line: None)
    assert [check.failed for check in verdict.checks] == [(), ("line 1",), (), ("line 1",), (), ("line 3",)]
    write(folder / "svamp_test.jsonl", [SVAMP[0] | {"Equation": "( 3 *"}])
    (verdict,) = data_verify("math", at=tmp_path / "data", say=lambda line: None)
    assert [check.failed for check in verdict.checks[-2:]] == [(), ("line 1",)]
    write(folder / "svamp_test.jsonl", [{"Body": "a", "Question": "b", "Answer": ""}])
    (verdict,) = data_verify("math", at=tmp_path / "data", say=lambda line: None)
    assert verdict.checks[-1].failed == ("line 1",)


def test_verify_runs_solutions_and_names_the_one_that_fails(tmp_path: Path, add: Callable[..., Path]) -> None:
    rows = json.loads((needs_data("code") / "sanitized-mbpp.json").read_text())[:3]
    add("code", write(tmp_path / "sanitized-mbpp.json", rows))
    (verdict,) = data_verify("code", at=tmp_path / "data", say=lambda line: None)
    assert [str(check) for check in verdict.checks] == ["3 of 3 solutions of mbpp pass in the sandbox"]
    assert verdict.sound
    name = rows[1]["code"].partition("def ")[2].partition("(")[0]
    rows[1]["code"] = f"def {name}(*given): return 'wrong'"
    add("code", write(tmp_path / "sanitized-mbpp.json", rows), force=True)
    (verdict,) = data_verify("code", at=tmp_path / "data", say=lambda line: None)
    assert verdict.checks[0].failed == (f"mbpp/{rows[1]['task_id']}",)
