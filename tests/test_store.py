"""The Parquet store: exact, atomic, and plain about what it cannot read."""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentdistill.errors import StoreError, UserError
from agentdistill.store import Store, token_frame
from agentdistill.store_schema import SCHEMA, VERSION_KEY, escape, unescape
from agentdistill.trajectory import Scores, StopReason, ToolCall, Trajectory, Turn
from tests.needs import missing

ROOT = Path(__file__).parents[1]


def episode(name: str = "e0", *, turns: int = 2, scorer: str = "teacher") -> Trajectory:
    made = [Turn([1, 2], [3, 4], f"go {n}", "ok", [-0.1, -0.2], [-0.3, -0.4], reward=0.5) for n in range(turns)]
    scores = {scorer: Scores(np.linspace(-1.0, -0.5, 2 * turns))}
    return Trajectory(name, "lab/Echo-v0", 7, "task", [], made, StopReason.MAX_TURNS, scores=scores)


def same(a: Any, b: Any) -> bool:
    """Equality to the bit, the type and the shape, with NaN equal to NaN: all of which `repr` spells out."""
    with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
        return repr(a) == repr(b)


text = st.text(st.characters(codec=None, exclude_categories=()), max_size=12)  # surrogates included
real = st.floats(width=64)
token = st.integers(0, 2**31 - 1)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | real | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
json_object = st.dictionaries(text, json_value, max_size=3)
int64 = st.integers(-(2**63), 2**63 - 1)


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    action = draw(st.lists(token, max_size=4))
    n = len(action) if draw(st.booleans()) else 0
    return Turn(
        prompt_ids=draw(st.lists(token, max_size=4)),
        action_ids=action,
        action=draw(text),
        observation=draw(text),
        logprobs=draw(st.lists(real, min_size=n, max_size=n)),
        logprobs_t1=draw(st.lists(real, min_size=n, max_size=n)),
        fresh=draw(st.booleans()),
        author=draw(st.sampled_from(["student", "expert"])),
        finish=draw(st.sampled_from(["stop", "length", "replayed"])),
        reward=draw(real),
        terminated=draw(st.booleans()),
        truncated=draw(st.booleans()),
        tool_calls=draw(st.lists(st.builds(ToolCall, text, json_object, text, st.booleans()), max_size=2)),
        teacher_prompt_ids=draw(st.none() | st.lists(token, max_size=3)),
        sample_seconds=draw(real),
        env_seconds=draw(real),
    )


@st.composite
def scores(draw: st.DrawFn) -> Scores:
    n, k = draw(st.integers(0, 4)), draw(st.integers(0, 3))
    values = draw(st.lists(real, min_size=n * (k + 2), max_size=n * (k + 2)))
    array = np.array(values, dtype=np.float64)
    ids = np.arange(n * k, dtype=np.int64).reshape(n, k)
    return Scores(
        logprobs=array[:n],
        entropy=draw(st.sampled_from([None, array[n : 2 * n]])),
        topk_ids=draw(st.sampled_from([None, ids])),
        topk_logprobs=draw(st.sampled_from([None, array[2 * n :].reshape(n, k)])),
    )


trajectories = st.builds(
    Trajectory,
    id=text,
    env_id=text,
    seed=int64,
    task_id=text,
    task_type=text,
    parent=text,
    messages=st.lists(st.builds(lambda role, content: {"role": role, "content": content}, text, text), max_size=2),
    turns=st.lists(turns(), max_size=3),
    stop_reason=st.sampled_from(StopReason),
    env_options=json_object,
    success=st.booleans(),
    policy=text,
    policy_version=int64,
    temperature=real,
    group=int64,
    prefix_turns=int64,
    windowed=int64,
    error=text,
    scores=st.dictionaries(text, scores(), max_size=2),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(items=st.lists(trajectories, max_size=3))
def test_every_field_of_every_trajectory_comes_back_exactly(tmp_path: Path, items: list[Trajectory]) -> None:
    store = Store(tmp_path)
    store.write("batch", items)
    assert same(store.read("batch"), items)


def test_the_comparison_of_these_tests_sees_a_changed_bit() -> None:
    a, b = episode(), episode()
    assert same(a, b)
    b.turns[1].logprobs[0] = np.nextafter(b.turns[1].logprobs[0], 0.0)
    assert not same(a, b)


@given(text)
def test_escaped_text_is_valid_utf8_and_unescapes_to_itself(value: str) -> None:
    assert unescape(escape(value)) == value
    escape(value).encode("utf-8")


def test_ordinary_text_is_stored_as_it_is() -> None:
    for value in ("plain\nlines\t", "naïve 漢字 🙂", "\\ud83d", ""):
        assert escape(value) == value


def test_a_batch_larger_than_a_row_group_keeps_its_order(tmp_path: Path) -> None:
    names = [f"e{n}" for n in range(300)]
    Store(tmp_path).write("b", [episode(name, turns=1) for name in names])
    assert [item.id for item in Store(tmp_path).read("b")] == names


def test_batches_are_listed_and_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "store")
    assert store.batches() == []
    for name in ("iter-000002", "eval-before", "iter-000001"):
        store.write(name, [episode(name)])
    assert store.batches() == ["eval-before", "iter-000001", "iter-000002"]
    assert [item.id for item in store.trajectories()] == store.batches()
    assert [item.id for item in store.trajectories(["iter-000002", "eval-before"])] == ["iter-000002", "eval-before"]


def test_a_batch_written_again_replaces_the_earlier_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("b", [episode("old")])
    store.write("b", [episode("new")])
    assert [item.id for item in store.trajectories()] == ["new"]


def test_an_empty_batch_is_a_batch(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("none", [])
    assert store.batches() == ["none"]
    assert store.read("none") == []


def test_discarding_takes_names_or_a_predicate_and_says_what_went(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for n in range(1, 5):
        store.write(f"iter-{n:06d}", [episode()])
    assert store.discard_after(lambda name: name > "iter-000003") == ["iter-000004"]
    assert store.discard_after(["iter-000002", "iter-000009"]) == ["iter-000002"]
    assert store.discard_after("iter-000001") == ["iter-000001"]
    assert store.batches() == ["iter-000003"]


def test_leftover_temporary_files_are_ignored_and_then_cleaned(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("a", [episode()])
    leftover = tmp_path / ".b.123.tmp"
    leftover.write_bytes(b"half a file")
    assert store.batches() == ["a"]
    assert len(list(store.trajectories())) == 1
    store.write("c", [episode()])
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "c.parquet", "index.json"]


def test_files_can_be_read_without_agentdistill(tmp_path: Path) -> None:
    file = Store(tmp_path).write("b", [episode("e", turns=3)])
    row = pq.read_table(file).to_pylist()[0]
    assert row["turns"][2]["action"] == "go 2"
    assert row["scores"][0]["scorer"] == "teacher"
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_file_from_before_task_types_is_read_as_having_none(tmp_path: Path) -> None:
    store, item = Store(tmp_path), episode("e", turns=2)
    file = store.write("b", [replace(item, task_type="cook")])
    assert store.read("b")[0].task_type == "cook"
    pq.write_table(pq.read_table(file).drop_columns("task_type"), file)
    assert store.read("b")[0].task_type == ""


# What cannot be read


def test_a_newer_schema_is_refused_with_both_versions_and_a_way_out(tmp_path: Path) -> None:
    newer = SCHEMA.with_metadata({VERSION_KEY: b"2"})
    pq.write_table(newer.empty_table(), tmp_path / "future.parquet")
    with pytest.raises(StoreError, match=r"future\.parquet has trajectory schema 2.*up to 1.*upgrade"):
        Store(tmp_path).read("future")


def test_a_parquet_file_of_another_kind_is_named_as_such(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(StoreError, match=r"other\.parquet is damaged or not a trajectory file.*agentdistill\.schema"):
        Store(tmp_path).read("other")


def test_our_schema_version_over_foreign_columns_is_damage(tmp_path: Path) -> None:
    table = pa.table({"id": ["x"]}).replace_schema_metadata({VERSION_KEY: b"1"})
    pq.write_table(table, tmp_path / "odd.parquet")
    with pytest.raises(StoreError, match=r"odd\.parquet is damaged"):
        Store(tmp_path).read("odd")


@pytest.mark.parametrize("keep", [0, 3, 4, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_named(tmp_path: Path, keep: float) -> None:
    file = Store(tmp_path).write("cut", [episode()])
    data = file.read_bytes()
    file.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(StoreError, match=r"cut\.parquet is damaged"):
        Store(tmp_path).read("cut")


def test_a_flipped_bit_in_the_data_is_an_error_and_never_a_wrong_trajectory(tmp_path: Path) -> None:
    store, items = Store(tmp_path), [episode(f"e{n}") for n in range(4)]
    file = store.write("b", items)
    whole, rng, refused = file.read_bytes(), random.Random(0), 0
    footer = struct.unpack("<I", whole[-8:-4])[0]
    for _ in range(100):
        at = rng.randrange(4, len(whole) - footer - 8)
        file.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << rng.randrange(8))]) + whole[at + 1 :])
        try:
            assert same(store.read("b"), items)  # the bit was in a page header that the reader does not use
        except StoreError as error:
            assert "b.parquet is damaged" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 50


def test_an_unknown_batch_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("eval-before", [episode()])
    with pytest.raises(StoreError, match="no batch 'eval-befor'; did you mean 'eval-before'"):
        store.read("eval-befor")


def test_a_store_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="store is not a folder"):
        Store(tmp_path / "store")


# What cannot be written


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "-x", "a\n", "sp ace"])
def test_names_that_are_not_file_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="cannot name a batch"):
        Store(tmp_path).write(name, [])


def test_values_that_json_would_change_are_refused_by_field(tmp_path: Path) -> None:
    for value in ({"x": (1, 2)}, {1: "x"}, {"x": {2}}, {"x": Path("p")}):
        item = episode("e7")
        item.turns[1].tool_calls = [ToolCall("add", value, "", True)]  # type: ignore[arg-type]
        with pytest.raises(StoreError, match="trajectory 'e7', turn 1, arguments of tool call 'add'"):
            Store(tmp_path).write("b", [item])
    assert Store(tmp_path).batches() == []


def test_numbers_and_messages_outside_the_schema_are_refused(tmp_path: Path) -> None:
    big, odd = episode(), episode()
    big.turns[0].action_ids = [2**40]
    odd.messages = [{"role": "user", "content": "x", "name": "y"}]
    for item in (big, odd):
        with pytest.raises(StoreError):
            Store(tmp_path).write("b", [item])
    assert Store(tmp_path).batches() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=False).returncode:
        missing("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def big_batch(tokens: int = 20_000) -> list[Trajectory]:
    rng = np.random.default_rng(0)
    items = [episode(f"e{n}") for n in range(20)]
    for item in items:
        item.turns[0].prompt_ids = rng.integers(0, 2**31, tokens).tolist()
    return items


def test_a_full_disk_leaves_a_readable_store_without_partial_files(small_disk: Path) -> None:
    store = Store(small_disk)
    store.write("a", [episode("kept")])
    store.write("b", [episode("older")])
    with pytest.raises(StoreError, match=r"b\.parquet: No space left on device.*make room"):
        store.write("b", big_batch())
    assert sorted(os.listdir(small_disk)) == ["a.parquet", "b.parquet", "index.json"]
    assert [item.id for item in store.trajectories()] == ["kept", "older"]
    store.write("c", [episode("after")])
    assert [item.id for item in store.read("c")] == ["after"]


LIMITED = """
import resource, sys
from agentdistill.errors import StoreError, UserError
from agentdistill.store import Store
from tests.test_store import big_batch
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    Store(sys.argv[1]).write("big", big_batch())
except StoreError as error:
    print(error)
"""


def test_a_file_size_limit_is_reported_like_a_full_disk(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("a", [episode()])
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path], cwd=ROOT, text=True, capture_output=True, check=True, timeout=60
    )
    assert "big.parquet: File too large" in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "index.json"]


WRITER = """
import itertools, sys
from agentdistill.store import Store
from tests.test_store import big_batch
items = big_batch(50_000)
for n in itertools.count():
    for item in items:
        item.policy_version = n
    Store(sys.argv[1]).write(f"iter-{n % 3:06d}", items)
"""


def test_killing_the_writer_in_the_middle_of_writes_leaves_only_whole_batches(tmp_path: Path) -> None:
    store, rng, cut = Store(tmp_path), random.Random(1), 0
    for attempt in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], cwd=ROOT)
        for _ in range(1 + attempt % 2):  # the moment a file appears, the first or the second of this writer
            before = set(os.listdir(tmp_path))
            while set(os.listdir(tmp_path)) == before:
                assert writer.poll() is None
        time.sleep(0.003 * rng.random())
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        cut += any(tmp_path.glob(".*.tmp"))
        for name in store.batches():
            items = store.read(name)
            assert len(items) == 20
            assert len({item.policy_version for item in items}) == 1
    assert cut, "no kill landed inside a write"
    store.write("end", [])
    assert not list(tmp_path.glob(".*"))


# The token table


def test_the_token_table_aligns_every_scorer_to_the_student_tokens() -> None:
    a, b = episode("a", scorer="big"), episode("b", scorer="small")
    a.turns[0].author = "expert"
    a.scores["big"] = Scores(np.array([-7.0, -8.0]))
    table = token_frame([a, b])
    assert table.column_names == [
        *("trajectory", "segment", "turn", "step", "is_action", "token_id", "logprob", "logprob_t1"),
        *("logprob.big", "logprob.small"),
    ]
    assert table.num_rows == 16
    rows = table.to_pylist()
    assert [row["logprob.big"] for row in rows if row["trajectory"] == "a" and row["is_action"]] == [-7.0, -8.0]
    small = [row["logprob.small"] for row in rows if row["trajectory"] == "b" and row["is_action"]]
    assert small == b.scores["small"].logprobs.tolist()
    for row in rows:
        if row["trajectory"] == "b":
            assert np.isnan(row["logprob.big"])
        if not row["is_action"]:
            assert all(np.isnan(row[name]) for name in ("logprob", "logprob_t1", "logprob.big", "logprob.small"))


def test_the_token_table_of_nothing_has_its_columns() -> None:
    table = token_frame([])
    assert table.num_rows == 0
    assert table.schema.field("is_action").type == pa.bool_()
    assert table.schema.field("token_id").type == pa.int32()


def test_scores_that_are_not_one_a_student_token_are_refused_by_name() -> None:
    item = episode("e3")
    item.scores["teacher"] = Scores(np.zeros(3))
    with pytest.raises(UserError, match="'e3' has 4 student tokens and 3 scores by 'teacher'; score it again"):
        token_frame([item])


def test_missing_log_probs_are_refused_by_trajectory() -> None:
    item = episode("e4")
    item.turns[0].logprobs = []
    with pytest.raises(StoreError, match="'e4' does not have one log-prob a student token"):
        token_frame([item])


def test_one_batch_may_be_named_without_a_list(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("a", "b"):
        store.write(name, [episode(name)])
    assert [item.id for item in store.trajectories("b")] == ["b"]
    with pytest.raises(StoreError, match="no batch 'c'"):
        list(store.trajectories("c"))


def test_reading_without_scores_leaves_their_column_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, read = Store(tmp_path), []
    store.write("b", [episode()])
    assert episode().scores
    plain = pq.ParquetFile.read_row_group

    def watched(file: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
        read.append(columns)
        return plain(file, group, columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", watched)
    assert store.read("b", ())[0].scores == {}
    assert store.read("b")[0].scores.keys() == episode().scores.keys()
    assert ["scores" in columns for columns in read] == [False, True]
