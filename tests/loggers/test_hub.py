"""Back-ends get the lines of the files, in order and once; what fails in one of them stops nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentdistill import api
from agentdistill.config import parse_experiment
from agentdistill.errors import UserError
from agentdistill.loggers import BackendSpec, Entry, RunInfo, register, registry
from agentdistill.loggers.hub import Hub
from agentdistill.loggers.registry import BACKENDS, chosen
from agentdistill.training.claim import _first_difference
from agentdistill.training.journal import Journal
from tests.training.scored_run import RUN, measured


class Memory:
    """A back-end that keeps what it gets."""

    def __init__(self, start: int = 0, fails_at: int = -1) -> None:
        self.start, self.fails_at, self.entries, self.closed = start, fails_at, list[Entry](), False

    def write(self, entry: Entry) -> None:
        if entry.line == self.fails_at:
            raise ConnectionError("the server\nis gone")
        self.entries.append(entry)

    def close(self) -> None:
        self.closed = True


def hub(folder: Path, *backends: Memory, notes: list[str] | None = None) -> Hub:
    specs = [BackendSpec(f"memory-{n}", lambda run, each=each: each) for n, each in enumerate(backends)]
    return Hub(specs, RunInfo(folder, "r", "0" * 12), ([] if notes is None else notes).append)


def test_lines_come_as_they_are_written_and_an_iteration_with_its_times(tmp_path: Path):
    journal, memory = Journal(tmp_path), Memory()
    views = hub(tmp_path, memory)
    journal.heard = views.catch_up
    journal.metric("sft", role="student", step=10, loss=0.5)
    assert [entry.values for entry in memory.entries] == [{"sft/student/step": 10, "sft/student/loss": 0.5}]
    journal.metric("iteration", iteration=1, kl=float("nan"), depth=None, kl_by_turn=[0.25, 1 / 3], stop_reasons={"depth": 2})
    assert len(memory.entries) == 1
    journal.timing(iteration=1, total=2.5)
    assert memory.entries[1].values == {
        "iteration/iteration": 1, "iteration/kl_by_turn/0": 0.25, "iteration/kl_by_turn/1": 1 / 3,
        "iteration/stop_reasons/depth": 2, "timing/total": 2.5,
    }  # fmt: skip
    journal.metric("eval", label="after", iteration=1, success=1.0)
    assert [(e.line, e.group, e.axis, e.at) for e in memory.entries] == [
        (0, "sft/student", "step", 10), (1, "iteration", "iteration", 1), (2, "eval/after", "iteration", 1),
    ]  # fmt: skip
    journal.close()


def test_an_iteration_whose_times_never_came_is_given_at_the_end(tmp_path: Path):
    journal, memory = Journal(tmp_path), Memory()
    views = hub(tmp_path, memory)
    journal.metric("iteration", iteration=1, kl=1.0)
    views.close()
    assert [entry.values["iteration/kl"] for entry in memory.entries] == [1.0]
    assert memory.closed
    journal.close()


def test_a_back_end_that_comes_later_gets_what_there_is_and_none_gets_what_it_has(tmp_path: Path):
    journal = Journal(tmp_path)
    for n in range(4):
        journal.metric("sft", role="student", step=n, loss=float(n))
    new, old = Memory(), Memory(start=3)
    hub(tmp_path, new, old).close()
    assert [entry.line for entry in new.entries] == [0, 1, 2, 3]
    assert [entry.line for entry in old.entries] == [3]
    journal.close()


def test_half_a_line_waits_for_the_rest(tmp_path: Path):
    memory = Memory()
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "sft", "st')
    views = hub(tmp_path, memory)
    assert memory.entries == []
    with path.open("a") as file:
        file.write('ep": 3}\n')
    views.catch_up()
    assert [entry.at for entry in memory.entries] == [3]


def test_a_back_end_that_fails_is_off_with_one_note_and_the_others_go_on(tmp_path: Path):
    journal, notes, good, bad = Journal(tmp_path), list[str](), Memory(), Memory(fails_at=1)
    views = hub(tmp_path, bad, good, notes=notes)
    journal.heard = views.catch_up
    for n in range(3):
        journal.metric("sft", role="student", step=n)
    views.close()
    assert [entry.line for entry in good.entries] == [0, 1, 2]
    assert [entry.line for entry in bad.entries] == [0]
    assert notes == [
        "note: logging to 'memory-0' failed and is off from here on (the server is gone); metrics.jsonl has every number"
    ]
    journal.close()


def test_a_run_whose_back_end_cannot_even_begin_goes_on_to_its_end(tmp_path: Path, guess_run: Path, monkeypatch: Any):
    def refuse(run: RunInfo) -> Memory:
        raise TimeoutError

    monkeypatch.setitem(BACKENDS, "down", BackendSpec("down", refuse))
    monkeypatch.setitem(BACKENDS, "breaks", BackendSpec("breaks", lambda run: Memory(fails_at=5)))
    said = measured({**RUN, "log": ["down", "breaks", "jsonl"]}, tmp_path / "run")
    assert [line for line in said if "failed and is off" in line] == [
        "note: logging to 'down' failed and is off from here on (TimeoutError); metrics.jsonl has every number",
        "note: logging to 'breaks' failed and is off from here on (the server is gone); metrics.jsonl has every number",
    ]
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (guess_run / "metrics.jsonl").read_bytes()


def test_a_server_that_is_not_there_stops_nothing(tmp_path: Path, monkeypatch: Any):
    from agentdistill.loggers import wandb_view
    from tests.needs import needs

    needs("wandb", "pip install 'agentdistill[wandb]'")
    monkeypatch.setattr(wandb_view, "SECONDS", 2.0)
    for name, value in {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_MODE": "online"}.items():
        monkeypatch.setenv(name, value)
    notes: list[str] = []
    Hub(chosen(["wandb"]), RunInfo(tmp_path, "r", "0" * 12), notes.append).close()
    assert len(notes) == 1
    assert notes[0].startswith("note: logging to 'wandb' failed and is off from here on (")


# What an experiment may ask for


def named(log: Any) -> Any:
    return parse_experiment({**RUN, "log": log}).log


def test_the_section_has_short_forms():
    assert named("wandb").backends == named(["wandb"]).backends == named({"backends": ["wandb"]}).backends == ["wandb"]
    assert parse_experiment(RUN).log.backends == []


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (["wandbb"], "log.backends names 'wandbb', and there is no such back-end; did you mean 'wandb'?"),
        (["tensorboard", "tensorboard"], "log.backends names 'tensorboard' twice; name it once"),
    ],
)
def test_names_that_mean_nothing_are_refused_before_anything_runs(log: Any, message: str, tmp_path: Path):
    with pytest.raises(UserError) as caught:
        api.train({**RUN, "log": log}, out=tmp_path / "run")
    assert str(caught.value) == message
    with pytest.raises(UserError):
        api.dry_run({**RUN, "log": log})
    assert not (tmp_path / "run").exists()


def test_an_unknown_field_of_the_section_is_named():
    with pytest.raises(UserError, match=r"unknown field 'log\.projct'; did you mean 'project'\?"):
        named({"projct": "x"})


@pytest.mark.parametrize("name", ["wandb", "tensorboard", "trackio"])
def test_a_missing_package_is_refused_with_the_command_that_installs_it(name: str, monkeypatch: Any):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(
        UserError, match=rf"the package {name} is not installed; pip install 'agentdistill\[{name}\]', or drop it"
    ):
        chosen([name])


def test_a_resumed_run_may_log_elsewhere():
    assert _first_difference(parse_experiment(RUN), parse_experiment({**RUN, "log": ["wandb"]})) == ""


def test_a_back_end_of_ones_own_is_registered_once(monkeypatch: Any):
    monkeypatch.setitem(BACKENDS, "mine", BackendSpec("mine", lambda run: Memory()))
    with pytest.raises(UserError, match="the logging back-end 'mine' is registered twice"):
        register(BackendSpec("mine", lambda run: Memory()))
    assert [spec.name for spec in chosen(["jsonl", "mine"])] == ["mine"]


def test_a_runs_id_is_made_once(tmp_path: Path):
    from agentdistill.training.meta import run_id

    first = run_id(tmp_path)
    assert run_id(tmp_path) == first
    (tmp_path / "id").write_text("nonsense")
    assert run_id(tmp_path) != "nonsense"
    assert json.dumps(first)


def test_the_back_end_that_contributing_shows_gets_every_number(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(registry, "BACKENDS", dict(BACKENDS))
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text().partition("### A logging back-end")[2]
    exec(page.partition("```python\n")[2].partition("```")[0], {})
    journal = Journal(tmp_path)
    journal.metric("sft", role="student", step=10, loss=1 / 3)
    Hub(registry.chosen(["csv"]), RunInfo(tmp_path, "r", "0" * 12), lambda _: None).close()
    assert (tmp_path / "metrics.csv").read_text() == f"0,sft/student/step,10\n0,sft/student/loss,{1 / 3!r}\n"
    journal.close()
