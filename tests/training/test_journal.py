"""A run's folder under kills, second processes, full disks and damage."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from agentdistill.errors import UserError
from agentdistill.policies.model import CausalLM
from agentdistill.training.journal import Journal, write_atomic
from agentdistill.training.optim import adamw
from agentdistill.training.state import load_state, save_state

LINK = {"stage": "train", "step": 3, "files": {"file": "0" * 64}, "state": {}}


def progress(**changes: Any) -> str:
    return json.dumps({"done": {}, "sizes": {}, "checkpoint": None, **changes})


def nothing(folder: Path) -> None:
    (folder / "file").write_text("x")


def in_child(work: Callable[[], None]) -> int:
    """Fork, run `work` in the child, and give its process id; its exit code is 0, or 1 if it raised."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException:
        os._exit(1)


def lines(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_a_resumed_run_cuts_what_came_after_the_last_checkpoint_to_the_byte(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.metric("iteration", iteration=1, loss=0.5)
    journal.timing(iteration=1, total=2.0)
    journal.checkpoint("train", 1, nothing, {})
    kept = (tmp_path / "metrics.jsonl").read_bytes(), (tmp_path / "timings.jsonl").read_bytes()
    journal.metric("iteration", iteration=2, note="ünfinished")
    journal.timing(iteration=2, total=2.0)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind": "torn')  # killed in the middle of a line
    journal.close()
    again = Journal(tmp_path)
    assert ((tmp_path / "metrics.jsonl").read_bytes(), (tmp_path / "timings.jsonl").read_bytes()) == kept
    again.metric("iteration", iteration=2)
    assert [line["iteration"] for line in lines(tmp_path)] == [1, 2]


def test_a_run_killed_before_its_first_checkpoint_starts_from_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.metric("iteration", iteration=1)
    journal.close()
    again = Journal(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
    assert again.resume_point("train", 10_000) is None
    assert not again.done("train")


def test_a_checkpoint_is_for_its_stage_and_carries_its_state(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.checkpoint("train", 20, nothing, {"schedule": {"depth": 3}})
    journal.close()
    journal = Journal(tmp_path)
    assert journal.resume_point("sft-teacher", 10_000) is None
    folder, step, state = journal.resume_point("train", 10_000) or pytest.fail("no checkpoint")
    assert (step, state) == (20, {"schedule": {"depth": 3}})
    assert (folder / "file").read_text() == "x"


def test_only_the_last_checkpoint_is_kept_and_a_finished_stage_keeps_none(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in (1, 2, 3):
        journal.checkpoint("train", step, nothing, {})
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["train-000003"]
    journal.finish("train")
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert journal.done("train")
    assert journal.resume_point("train", 10_000) is None
    journal.close()
    assert Journal(tmp_path).done("train")


def test_what_a_killed_checkpoint_left_behind_is_cleared(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for stale in ("train-000002", ".train-000002.partial"):  # renamed but never linked, and never renamed
        (tmp_path / "checkpoints" / stale).mkdir(parents=True)
        (tmp_path / "checkpoints" / stale / "old").write_text("old")
    journal.checkpoint("train", 2, nothing, {})
    assert [p.relative_to(tmp_path / "checkpoints").as_posix() for p in (tmp_path / "checkpoints").rglob("*")] == [
        "train-000002", "train-000002/file"
    ]  # fmt: skip


def test_a_process_killed_at_any_moment_leaves_a_loadable_checkpoint(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    first.checkpoint("train", 0, lambda folder: fill(folder, 0), {"step": 0})
    first.close()
    reached = 0

    def work() -> None:
        journal = Journal(tmp_path)
        _, step, _ = journal.resume_point("train", 10_000) or (None, 0, None)
        for k in range(step + 1, step + 1000):
            journal.metric("iteration", iteration=k)
            journal.checkpoint("train", k, lambda folder, k=k: fill(folder, k), {"step": k})

    for trial in itertools.count():  # 25 times, and on a busy machine until the children get to work before they are killed
        if trial >= 25 and reached > 3:
            break
        assert trial < 250, "the children never got to work"
        child = in_child(work)
        time.sleep(0.02 + 0.0037 * trial)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        journal = Journal(tmp_path)
        folder, step, state = journal.resume_point("train", 10_000) or pytest.fail("no checkpoint")
        assert state == {"step": step}
        assert {file.read_bytes() for file in folder.iterdir()} == {bytes([step % 256]) * 30_000}
        assert len(list(folder.iterdir())) == 4
        written = lines(tmp_path) if (tmp_path / "metrics.jsonl").exists() else []
        assert [line["iteration"] for line in written] == list(range(1, step + 1))
        assert step >= reached
        reached = step
        journal.close()


def fill(folder: Path, step: int) -> None:
    for name in "abcd":
        (folder / name).write_bytes(bytes([step % 256]) * 30_000)


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    journal = Journal(tmp_path)

    def second() -> None:
        with pytest.raises(UserError, match="another process is working in"):
            Journal(tmp_path)

    assert os.waitpid(in_child(second), 0)[1] == 0
    second()  # nor twice in one process
    journal.close()
    Journal(tmp_path).close()


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    def work() -> None:
        held = Journal(tmp_path)
        (held.folder / "ready").touch()
        time.sleep(60)

    child = in_child(work)
    while not (tmp_path / "ready").exists():
        time.sleep(0.005)
    with pytest.raises(UserError, match="another process"):
        Journal(tmp_path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    Journal(tmp_path).close()


def test_a_full_disk_in_a_checkpoint_is_one_sentence_and_the_earlier_one_stays(
    tmp_path: Path, make_lm: Callable[[int], CausalLM]
) -> None:
    lm = make_lm(0)
    optimizer = adamw(lm.model, 1e-3, (0.9, 0.999), 0.0)
    lm.model(input_ids=torch.tensor([[5, 6]])).logits.sum().backward()
    optimizer.step()
    run = tmp_path / "run"
    journal = Journal(run)
    journal.metric("iteration", iteration=1)
    journal.checkpoint("train", 1, lambda target: save_state(target, lm, optimizer), {})
    weights = (run / "checkpoints" / "train-000001" / "weights.safetensors").stat().st_size
    moments = (run / "checkpoints" / "train-000001" / "optimizer.pt").stat().st_size
    assert moments > weights
    journal.close()

    for limit in (weights // 2, (weights + moments) // 2):  # full while weights, and while optimizer state is written

        def work(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            mine = Journal(run)
            mine.metric("iteration", iteration=2)
            try:
                mine.checkpoint("train", 2, lambda target: save_state(target, lm, optimizer), {})
            except UserError as error:
                (tmp_path / "said").write_text(str(error))

        assert os.waitpid(in_child(work), 0)[1] == 0
        said = (tmp_path / "said").read_text()
        (tmp_path / "said").unlink()
        assert "train-000002' could not be written: " in said
        assert said.endswith("; free some space, then go on with --resume")
        assert "\n" not in said
        assert [p.name for p in (run / "checkpoints").iterdir()] == ["train-000001"]
        again = Journal(run)
        folder, step, _ = again.resume_point("train", 10_000) or pytest.fail("no checkpoint")
        load_state(folder, make_lm(1), adamw(make_lm(1).model, 1e-3, (0.9, 0.999), 0.0))
        assert step == 1
        assert [line["iteration"] for line in lines(run)] == [1]
        again.close()


def test_a_full_disk_under_the_metrics_is_one_sentence(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"metrics\.jsonl' could not be written: No space left on device"):
        journal.metric("iteration", iteration=1)


def test_a_file_that_cannot_be_replaced_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    write_atomic(path, "old")
    (tmp_path / f".progress.json.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"progress\.json' could not be written: No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "3", '"x"', "{}", b"\xff\xfe", progress(done=[]), progress(done=3), progress(sizes=[]),
     progress(sizes={"metrics.jsonl": "x"}), progress(sizes={"metrics.jsonl": -5}), progress(sizes={"losses.jsonl": 5}),
     progress(checkpoint=3), progress(checkpoint={}), progress(checkpoint={**LINK, "step": -1}),
     progress(checkpoint={**LINK, "stage": "trian"}), progress(checkpoint={**LINK, "files": {}}),
     progress(checkpoint={**LINK, "files": {"a": "0"}}), progress(checkpoint=LINK, done={"train": {}}),
     progress(done={"trian": {}}), progress(done={"train": None}), progress(seconds="x"), progress(seconds=-1.0),
     progress(experiment="x"), progress(more=1)],
)  # fmt: skip
def test_a_damaged_progress_file_is_refused_and_gives_the_lock_back(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "metrics.jsonl").write_text("precious\n")
    for _ in range(2):  # the second time it is the damage again, not the lock
        with pytest.raises(UserError, match=r"progress\.json' is damaged") as error:
            Journal(tmp_path)
        assert "\n" not in str(error.value)
    assert (tmp_path / "metrics.jsonl").read_text() == "precious\n"  # nothing is cut on bad advice


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        Journal(tmp_path / "file" / "run")


def test_numbers_that_are_not_finite_become_null_and_text_stays_readable(tmp_path: Path) -> None:
    Journal(tmp_path).metric("x", a=float("nan"), b=[1.0, float("inf")], c={"d": float("-inf"), 3: (1,)}, e="ü")
    assert lines(tmp_path) == [{"kind": "x", "a": None, "b": [1.0, None], "c": {"d": None, "3": [1]}, "e": "ü"}]
    assert "ü" in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")


def test_seconds_count_earlier_sessions_up_to_their_last_checkpoint(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    time.sleep(0.05)
    journal.finish("tokenizer")
    at_finish = json.loads((tmp_path / "progress.json").read_text())["seconds"]
    journal.close()
    time.sleep(1)
    assert 0.05 <= at_finish <= Journal(tmp_path).seconds < at_finish + 0.9


def test_metrics_that_were_altered_are_refused_and_later_lines_are_not_missed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.metric("eval", success=0.125)
    journal.finish("eval-before")
    journal.close()
    path = tmp_path / "metrics.jsonl"
    with path.open("a") as file:
        file.write("written after the last commit\n")
    Journal(tmp_path).close()
    path.write_text(path.read_text().replace("0.125", "0.925"))
    with pytest.raises(UserError, match=r"'.*metrics\.jsonl' is damaged: it is not what the run wrote"):
        Journal(tmp_path)
