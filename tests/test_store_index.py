"""What was written is known: a lost, altered or foreign file is noticed, and a crash is not mistaken for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentdistill import durable
from agentdistill.errors import StoreError
from agentdistill.store import Store
from tests.test_store import episode


def crash(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    for name in ("one", "two"):
        made.write(name, [episode(name)])
    return made


def test_what_was_written_has_no_problems(store: Store):
    store.write("two", [episode("again")])
    assert store.problems() == []
    assert Store(store.path).problems() == []


def test_one_flipped_byte_anywhere_is_noticed(store: Store):
    file = store.path / "two.parquet"
    whole = file.read_bytes()
    for place in range(0, len(whole), 97):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        (problem,) = store.problems()
        assert "two.parquet is not as it was written" in problem


def test_a_truncated_and_a_deleted_file_are_noticed(store: Store):
    file = store.path / "one.parquet"
    file.write_bytes(file.read_bytes()[:100])
    (store.path / "two.parquet").unlink()
    first, second = store.problems()
    assert "one.parquet is not as it was written" in first
    assert "two.parquet is missing" in second


def test_discarded_batches_are_not_missed(store: Store):
    store.discard_after(["two"])
    assert store.problems() == []
    assert store.batches() == ["one"]


def test_a_crash_between_the_index_and_the_file_leaves_a_store_without_problems(store: Store, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("agentdistill.store.replace", crash)
        with pytest.raises(KeyboardInterrupt):
            store.write("two", [episode("never there")])
    assert store.problems() == []
    store.write("two", [episode("at last")])
    assert store.problems() == []
    assert [t.id for t in store.read("two")] == ["at last"]


def test_a_batch_whose_first_write_was_cut_short_is_not_missed(store: Store, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("agentdistill.store.replace", crash)
        with pytest.raises(KeyboardInterrupt):
            store.write("three", [episode("never there")])
    assert store.problems() == []
    assert store.batches() == ["one", "two"]


def test_a_crash_after_the_file_was_put_in_place_leaves_no_problem(store: Store, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("agentdistill.store_index.Index.settle", crash)
        with pytest.raises(KeyboardInterrupt):
            store.write("two", [episode("there")])
    assert store.problems() == []
    assert [t.id for t in store.read("two")] == ["there"]


def test_a_write_that_the_disk_refuses_leaves_no_problem(store: Store, monkeypatch):
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("agentdistill.store.replace", full)
        for name in ("two", "three"):
            with pytest.raises(StoreError, match="No space left"):
                store.write(name, [episode("never there")])
    assert store.problems() == []


def test_a_store_without_an_index_has_nothing_to_be_checked_by(store: Store):
    (store.path / "index.json").unlink()
    (store.path / "two.parquet").unlink()
    assert store.problems() == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"batches": [1]}', "\ud800"])
def test_a_damaged_index_is_named(store: Store, text: str):
    (store.path / "index.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(StoreError, match=r"index\.json is damaged"):
        store.problems()


def test_the_index_holds_what_the_files_have(store: Store):
    for n in range(3):
        store.write("one", [episode(str(n))])
    entry = json.loads((store.path / "index.json").read_text())["batches"]["one"]
    assert entry == {"sha256": durable.digest(store.path / "one.parquet")}


def test_one_batch_can_be_asked_about(store: Store):
    (store.path / "two.parquet").unlink()
    store.require_whole(["one"])
    with pytest.raises(StoreError, match=r"two\.parquet is missing"):
        store.require_whole(["one", "two"])
    (store.path / "one.parquet").unlink()
    with pytest.raises(StoreError, match=r"one\.parquet is missing.*1 other batches are damaged too"):
        store.require_whole()


def test_a_batch_that_is_replaced_or_deleted_while_it_is_looked_at_is_no_problem(store: Store, monkeypatch):
    writer, looked = Store(store.path), []

    def meanwhile(path: Path) -> str:
        if not looked:
            looked.append(path)
            writer.write("one", [episode("again")])
            writer.discard_after(["two"])
        return durable.digest(path)

    monkeypatch.setattr("agentdistill.store_index.digest", meanwhile)
    assert store.problems() == []
    assert looked
