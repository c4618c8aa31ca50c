from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from agentdistill.envs import jsonstream
from agentdistill.envs.jsonstream import elements, items
from agentdistill.errors import UserError

VALUES = [{"a": [1, 2], "b": '] } , " é'}, 12.5, -3e10, "text", None, True, [], {}, [[{"x": "}"}]], 7]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_members_are_what_json_reads_wherever_the_text_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None
):
    monkeypatch.setattr(jsonstream, "_CHUNK", chunk)
    (path := tmp_path / "list.json").write_text(f" \n{json.dumps(VALUES, indent=indent)}\n")
    assert list(elements(path)) == VALUES
    keyed = {f"key {number}": value for number, value in enumerate(VALUES)}
    (path := tmp_path / "dict.json").write_text(json.dumps(keyed, indent=indent))
    assert dict(items(path)) == keyed


def test_compressed_and_empty_files_are_read(tmp_path: Path):
    (path := tmp_path / "list.json.gz").write_bytes(gzip.compress(json.dumps(VALUES).encode()))
    assert list(elements(path)) == VALUES
    (path := tmp_path / "empty.json").write_text("[ ]")
    assert list(elements(path)) == []


@pytest.mark.parametrize("text", ["", "{}", "[1, 2", '[{"a": 1}, {"b": ', "[1, }]", "<html>", '["a"'])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, text: str):
    (path := tmp_path / "list.json").write_text(text)
    with pytest.raises(UserError, match=r"list\.json' cannot be read: it is damaged .*; download it again"):
        list(elements(path))


def test_a_missing_or_cut_compressed_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"none\.json' cannot be read: No such file"):
        list(elements(tmp_path / "none.json"))
    (path := tmp_path / "cut.json.gz").write_bytes(gzip.compress(json.dumps(VALUES).encode())[:-9])
    with pytest.raises(UserError, match=r"cut\.json\.gz' cannot be read: it is damaged"):
        list(elements(path))


def test_a_member_that_never_ends_is_not_gathered_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jsonstream, "_CHUNK", 100)
    monkeypatch.setattr(jsonstream, "_LARGEST", 1000)
    (path := tmp_path / "list.json").write_text('["' + "x" * 100_000 + '"]')
    with pytest.raises(UserError, match=r"after 1 characters"):
        list(elements(path))
