from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentdistill.envs.data import data_folder, read_rows, read_text
from agentdistill.errors import UserError


def test_a_missing_variable_says_what_to_set_and_how_to_get_the_data(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AGENTDISTILL_DATA", raising=False)
    with pytest.raises(
        UserError,
        match=r"AGENTDISTILL_DATA is not set; set AGENTDISTILL_DATA to the folder that holds alfworld/, or to a new one, "
        r"download json_2.1.1 of the ALFWorld project.*, then run: agentdistill data import alfworld path/to/json_2.1.1$",
    ):
        data_folder("alfworld")
    with pytest.raises(UserError, match=r"set AGENTDISTILL_DATA to the folder that holds no_data/$"):
        data_folder("no_data")


def test_a_missing_folder_is_named_with_the_command_that_makes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("AGENTDISTILL_DATA", str(tmp_path))
    with pytest.raises(
        UserError,
        match=f"no folder '{tmp_path}/math'; download train.jsonl .* grade-school-math .*, then run: "
        "agentdistill data import math gsm8k_train=path/to/train.jsonl gsm8k_test=path/to/test.jsonl$",
    ):
        data_folder("math")
    with pytest.raises(UserError, match=f"no folder '{tmp_path}/no_data'; set AGENTDISTILL_DATA .* holds no_data/$"):
        data_folder("no_data")
    (tmp_path / "math").mkdir()
    assert data_folder("math") == tmp_path / "math"


def test_a_missing_file_of_a_data_set_is_named_with_the_command_that_adds_it(tmp_path: Path):
    (tmp_path / "math").mkdir()
    with pytest.raises(
        UserError,
        match=r"svamp_test.jsonl' cannot be read: No such file .*; import it again: download svamp/test.jsonl of .*, then run: "
        r"agentdistill data import math svamp=path/to/file --add$",
    ):
        list(read_rows(tmp_path / "math" / "svamp_test.jsonl"))


@pytest.mark.parametrize(("suffix", "opener"), [("", open), (".gz", gzip.open), (".xz", lzma.open)])
def test_rows_are_read_from_plain_and_compressed_files(tmp_path: Path, suffix: str, opener: Callable[..., Any]):
    path = tmp_path / f"rows.jsonl{suffix}"
    with opener(path, "wt", encoding="utf-8") as file:
        file.write('{"a": "é"}\n\n{"a": 2}\n')
    assert list(read_rows(path)) == [{"a": "é"}, {"a": 2}]


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_missing_and_damaged_files_are_named(tmp_path: Path, suffix: str):
    path = tmp_path / f"rows.jsonl{suffix}"
    with pytest.raises(UserError, match=f"'{path}' cannot be read: No such file"):
        list(read_rows(path))
    path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match=f"'{path}' cannot be read"):
        list(read_rows(path))
    path.write_bytes({".gz": gzip.compress, ".xz": lzma.compress}.get(suffix, bytes)(b'{"a": 1}\n' * 99)[:-9])
    if suffix:
        with pytest.raises(UserError, match="cannot be read: it is damaged"):
            list(read_rows(path))
    with pytest.raises(UserError, match="cannot be read"):
        read_text(tmp_path / "none.pddl")
