"""Digests of the files that a run reads back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from agentdistill.durable import digest
from agentdistill.errors import UserError
from agentdistill.training.integrity import seal, verify


def test_a_digest_is_the_files_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert digest(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def filled(folder: Path) -> dict[str, str]:
    (folder / "model" / "deep").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "deep" / "weights").write_bytes(bytes(1000))
    (folder / "eval.json").write_text("1")
    return seal(folder, [folder / "model", folder / "eval.json"])


def test_files_and_all_below_folders_are_sealed_by_their_path(tmp_path: Path) -> None:
    assert list(filled(tmp_path)) == ["eval.json", "model/config.json", "model/deep/weights"]


def test_what_was_not_sealed_does_not_matter(tmp_path: Path) -> None:
    sealed = filled(tmp_path)
    (tmp_path / "model" / "README.md").write_text("mine")
    verify(tmp_path, sealed, "train")


def test_one_flipped_bit_is_refused_by_the_files_name(tmp_path: Path) -> None:
    sealed = filled(tmp_path)
    path = tmp_path / "model" / "deep" / "weights"
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model/deep/weights' is damaged: it is not what stage 'train' wrote"):
        verify(tmp_path, sealed, "train")


def test_a_missing_file_and_a_missing_folder_are_named_as_the_runs_own(tmp_path: Path) -> None:
    sealed = filled(tmp_path)
    (tmp_path / "eval.json").unlink()
    with pytest.raises(UserError, match=r"the run's own file '.*/eval\.json', which its stage 'x' wrote, is missing"):
        verify(tmp_path, sealed, "x")
    (tmp_path / "eval.json").write_text("1")
    for file in ("model/deep/weights", "model/config.json"):
        (tmp_path / file).unlink()
    (tmp_path / "model" / "deep").rmdir()
    (tmp_path / "model").rmdir()
    with pytest.raises(UserError, match=r"the run's own folder '.*/model', which its stage 'x' wrote, is missing"):
        verify(tmp_path, sealed, "x")
