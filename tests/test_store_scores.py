"""Scores that were added afterwards come back with their trajectories, and nothing else of the store is touched by them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agentdistill.errors import StoreError
from agentdistill.store import Store
from agentdistill.store_scores import Identity, ScoreFiles, sizes
from agentdistill.trajectory import Scores, StopReason, Trajectory, Turn

ME = Identity("models/a", "1" * 64, "2" * 64)


def episode(index: int, n: int = 3, **scores: Scores) -> Trajectory:
    turn = Turn([1, 2], list(range(n)), "x", "y", logprobs=[-1.0] * n, logprobs_t1=[-1.0] * n)
    return Trajectory(f"b/{index}", "lab/X-v0", index, "t", [], [turn], StopReason.TERMINATED, scores=scores)


def said(n: int = 3, k: int = 0, entropy: bool = False, seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)

    def real(*shape: int) -> np.ndarray:
        return -rng.exponential(size=shape).astype(np.float32).astype(np.float64)

    out = Scores(real(n), -real(n) if entropy else None)
    if k:
        out.topk_ids, out.topk_logprobs = rng.integers(0, 500, (n, k)), real(n, k)
    return out


def same(a: Scores | None, b: Scores | None) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in ("logprobs", "entropy", "topk_ids", "topk_logprobs")]
    return all((x is None and y is None) or (x is not None and y is not None and np.array_equal(x, y)) for x, y in pairs)


def scored(path: Path, name: str = "org/strong", rows: int = 4, k: int = 0) -> tuple[Store, list[Scores]]:
    """A store of six trajectories, the last four of which (or as many as told) somebody scored."""
    store = Store(path)
    store.write("b", [episode(i) for i in range(6)])
    given = [said(k=k, entropy=bool(k), seed=i) for i in range(rows)]
    store.scores(name).claim(ME)
    row = [(f"b/{6 - rows + i}", each) for i, each in enumerate(given)]
    store.scores(name).write("b", store.digest("b"), 6 - rows, row, k=k, entropy=bool(k))
    return store, given


@pytest.mark.parametrize("k", [0, 5])
def test_what_was_said_comes_back_with_its_trajectory(k: int, tmp_path: Path) -> None:
    store, given = scored(tmp_path, k=k)
    read = Store(tmp_path).read("b")
    assert [t.scores.get("org/strong") is not None for t in read] == [False] * 2 + [True] * 4
    assert all(same(t.scores["org/strong"], each) for t, each in zip(read[2:], given, strict=True))
    assert store.scorers() == ["org/strong"]
    assert store.batches() == ["b"]


def test_the_trajectories_file_stays_as_it_was_to_the_byte(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("b", [episode(i) for i in range(6)])
    before = [(tmp_path / name).read_bytes() for name in ("b.parquet", "index.json")]
    store.scores("s").claim(ME)
    store.scores("s").write("b", store.digest("b"), 0, [("b/0", said())])
    assert [(tmp_path / name).read_bytes() for name in ("b.parquet", "index.json")] == before
    assert store.problems() == []


def test_a_row_that_had_nothing_to_score_stays_without(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("b", [episode(0), episode(1)])
    store.scores("s").write("b", store.digest("b"), 0, [("b/0", None), ("b/1", said())])
    first, second = store.read("b")
    assert (list(first.scores), list(second.scores)) == ([], ["s"])


def test_several_scorers_stand_side_by_side_and_one_can_be_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("b", [episode(0, own=said(seed=7))])
    for seed, name in enumerate(("s", "org/t")):
        store.scores(name).write("b", store.digest("b"), 0, [("b/0", said(seed=seed))])
    assert list(store.read("b")[0].scores) == ["own", "org/t", "s"]
    (only,) = store.read("b", ["s"])
    assert list(only.scores) == ["s"]
    assert same(only.scores["s"], said(seed=0))
    assert store.read("b", ())[0].scores == {}


def test_files_over_the_trajectories_own_scores_of_that_name_count(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("b", [episode(0, s=said(seed=7)), episode(1, s=said(seed=8))])
    store.scores("s").write("b", store.digest("b"), 1, [("b/1", said(seed=1))])
    first, second = store.read("b")
    assert same(first.scores["s"], said(seed=7))
    assert same(second.scores["s"], said(seed=1))


def test_trajectories_are_picked_by_their_places(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("b", [episode(i) for i in range(300)])
    for start in (0, 128, 256):
        rows = [(f"b/{i}", said(seed=i)) for i in range(start, min(start + 128, 300))]
        store.scores("s").write("b", store.digest("b"), start, rows)
    picked = store.pick("b", [299, 0, 130, 127])
    assert [t.id for t in picked] == ["b/0", "b/127", "b/130", "b/299"]
    assert all(same(t.scores["s"], said(seed=t.seed)) for t in picked)
    assert store.size("b") == 300


def test_a_name_belongs_to_one_model(tmp_path: Path) -> None:
    files = ScoreFiles(tmp_path, "s")
    files.claim(ME)
    files.claim(Identity("a copy elsewhere", ME.weights, ME.vocabulary))
    with pytest.raises(StoreError, match=r"'s' .* by model 'models/a' \(weights 111111111111\), and 'models/b' is another"):
        files.claim(Identity("models/b", "3" * 64, ME.vocabulary))
    with pytest.raises(StoreError, match="vocabulary 222222222222"):
        files.claim(Identity("models/a", ME.weights, "3" * 64))
    with pytest.raises(StoreError, match="behind the teacher's prompts, and these would be behind the student's"):
        files.claim(Identity("models/a", ME.weights, ME.vocabulary, "student"))
    assert files.identity() == ME
    assert ScoreFiles(tmp_path, "nobody").identity() is None


@pytest.mark.parametrize("name", ["..", ".hidden", "org/name@rev", "a b", "ü=%2F"])
def test_any_printable_name_is_a_folder_of_its_own(name: str, tmp_path: Path) -> None:
    files = Store(tmp_path / "s").scores(name)
    files.claim(ME)
    assert files.folder.resolve().parent == (tmp_path / "s" / "scores").resolve()
    assert Store(tmp_path / "s").scorers() == [name]


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\ud800"])
def test_a_name_that_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="printable name"):
        Store(tmp_path).scores(name)


def test_a_batch_that_is_written_again_or_deleted_takes_its_scores_with_it(tmp_path: Path) -> None:
    store, _ = scored(tmp_path)
    store.write("c", [episode(0)])
    store.scores("org/strong").write("c", store.digest("c"), 0, [("b/0", said())])
    store.write("b", [episode(i, 4) for i in range(6)])
    assert all(not t.scores for t in store.read("b"))
    assert store.read("c")[0].scores
    store.discard_after(["c"])
    assert store.scores("org/strong").paths("c") == []


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
    "cut": lambda data: data[: len(data) // 2],
    "foreign": lambda data: b"not parquet",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_scores_is_named_and_the_trajectories_are_read_without_it(damage: str, tmp_path: Path) -> None:
    store, _ = scored(tmp_path, k=5)
    (file,) = store.scores("org/strong").paths("b")
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    with pytest.raises(StoreError, match=rf"{file.name} is damaged or no file of scores .* delete it, and score again"):
        store.read("b")
    assert len(store.read("b", ())) == 6


def test_scores_of_another_file_or_of_another_trajectory_are_refused(tmp_path: Path) -> None:
    store, _ = scored(tmp_path)
    store.scores("s").write("b", "0" * 64, 0, [("b/0", said())])
    with pytest.raises(StoreError, match="not the batch's any more"):
        store.read("b", ["s"])
    store.scores("s").write("b", store.digest("b"), 0, [("b/1", said())])
    with pytest.raises(StoreError, match="of trajectory 'b/1' where 'b/0' with 3 student tokens is"):
        store.read("b", ["s"])
    store.scores("s").write("b", store.digest("b"), 0, [("b/0", said(2))])
    with pytest.raises(StoreError, match="holds 2 scores of trajectory 'b/0'"):
        store.read("b", ["s"])


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, given = scored(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"cannot write scores to .*: No space left on device; what is there is unharmed"):
        store.scores("org/strong").write("b", store.digest("b"), 2, [("b/2", said(seed=9))])
    assert [same(t.scores["org/strong"], each) for t, each in zip(store.read("b")[2:], given, strict=True)] == [True] * 4
    assert not list(store.scores("org/strong").folder.glob(".*.tmp"))


def test_a_part_says_what_it_holds_and_sizes_add_up_to_the_files(tmp_path: Path) -> None:
    store, _ = scored(tmp_path, k=5)
    store.scores("org/strong").write("b", store.digest("b"), 0, [("b/0", None), ("b/1", said())])
    first, second = store.scores("org/strong").parts("b")
    assert (first.start, first.n, first.scored, first.k, first.entropy) == (0, 2, 1, 0, False)
    assert (second.start, second.n, second.scored, second.k, second.entropy) == (2, 4, 4, 5, True)
    assert second.has(5, True)
    assert not second.has(6, False)
    assert not first.has(0, True)
    found = sizes([first, second])
    assert sum(found.values()) == first.path.stat().st_size + second.path.stat().st_size
    assert found["topk_logprobs"] > found["logprobs"] > 0 < found["file"]


def test_one_flipped_bit_anywhere_is_told_or_changes_nothing(tmp_path: Path) -> None:
    store, given = scored(tmp_path, k=5)
    (file,) = store.scores("org/strong").paths("b")
    whole, refused, others = file.read_bytes(), 0, 0
    for place, bit in (*((place, 1) for place in range(0, len(whole), 37)), *((999, 1 << n) for n in range(8))):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        try:
            read = [t.scores["org/strong"] for t in store.read("b")[2:]]
        except StoreError as error:
            refused += file.name in str(error)
            others += file.name not in str(error)
        else:
            assert all(same(a, b) for a, b in zip(read, given, strict=True)), place
    assert refused > 40
    assert others == 0
