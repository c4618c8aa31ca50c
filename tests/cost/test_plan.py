"""What an experiment will cost, in words and numbers; how near it comes is measured by `benchmarks/plan.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import agentdistill as ad
from agentdistill import cli
from agentdistill.cost.devices import device
from agentdistill.cost.estimate import PHASES, memory, models_of, peak, seconds
from agentdistill.cost.meters import Roofline
from agentdistill.cost.shape import shape_of
from agentdistill.cost.work import Lengths, allowed, like, reads_early, work_of
from agentdistill.signals import Method
from tests.training.test_run import BASE, run

pytestmark = pytest.mark.usefixtures("undrawn")  # nobody looks at the runs' pictures

LARGE: dict[str, Any] = {
    "env": {"id": "agentdistill/ALFWorld-v0"}, "student": {"model": "lab/Small-1.5B"}, "teacher": {"model": "lab/Large-7B"},
}  # fmt: skip
EPISODE = Lengths(4.0, 40.0, 16.0, 200.0, 0.0, "a test")


def parts(changes: dict[str, Any] | None = None, lengths: Lengths = EPISODE) -> dict[str, float]:
    config = ad.experiment({**LARGE, "train": {"tasks": 8}}, changes or {})
    return memory(config, models_of(config), work_of(config, lengths), base=0.0)


def test_student_takes_twelve_bytes_a_parameter_and_teacher_four() -> None:
    student, teacher = shape_of("lab/Small-1.5B"), shape_of("lab/Large-7B")
    found = parts()
    assert found["student and optimizer"] == 12 * student.parameters
    assert found["teachers and references"] == 4 * teacher.parameters
    assert found["updating"] > 4 * student.parameters


def test_a_teacher_of_the_students_weights_is_a_copy_and_a_live_one_is_none() -> None:
    copy, live = (parts({"teacher.model": kind, "teacher.privileged": True}) for kind in ("initial", "live"))
    assert copy["teachers and references"] == 4 * shape_of("lab/Small-1.5B").parameters
    assert live["teachers and references"] == 0
    assert live["scoring"] == copy["scoring"]


def test_an_adapter_has_a_small_optimizer() -> None:
    whole, lora = parts(), parts({"student.lora": {"r": 8}})
    assert lora["student and optimizer"] < 0.4 * whole["student and optimizer"]


def test_a_smaller_token_budget_takes_less_to_update() -> None:
    longer = Lengths(4.0, 400.0, 16.0, 2000.0, 0.0, "a test")
    assert (
        parts({"train.token_budget": 2048}, longer)["updating"] < 0.5 * parts({"train.token_budget": 8192}, longer)["updating"]
    )


def test_the_peak_is_what_is_always_there_and_the_worst_phase() -> None:
    found = {"process": 1.0, "student and optimizer": 2.0, "teachers and references": 3.0} | dict.fromkeys(PHASES, 1.0)
    assert peak({**found, "playing": 7.0}) == 13.0


def test_a_device_is_never_faster_than_its_figures() -> None:
    shape, h100 = shape_of("lab/Large-7B"), device("h100")
    meter = Roofline(h100)
    assert meter.decode(shape, 1, 100) >= 4 * shape.body / h100.bandwidth
    assert meter.score(shape, 1e6, 512, 1e5) >= 2 * shape.body * 1e6 / h100.flops[4]
    assert meter.train(shape, 1e6, 512, 1e5) >= 3 * meter.score(shape, 1e6, 512, 1e5)
    assert meter.decode(shape, 64, 4000) > meter.decode(shape, 64, 100)


def test_twice_the_episodes_take_twice_the_scoring_and_update() -> None:
    config = ad.experiment(LARGE)
    models, meter = models_of(config), Roofline(device("a100"))
    once, twice = (
        seconds(models, work_of(ad.experiment({**LARGE, "train": {"tasks": tasks}}), EPISODE), meter) for tasks in (16, 32)
    )
    for name in ("score", "update"):
        assert twice[name] == pytest.approx(2 * once[name])


def test_what_fits_no_single_device_is_sharded_and_what_fits_none_is_told_with_the_remedy() -> None:
    fits = ad.plan({**LARGE, "student": {"model": "lab/Small-0.6B"}, "teacher": {"model": "lab/Small-0.6B"},
                    "train": {"token_budget": 2048}}, device="h100")  # fmt: skip
    assert fits.devices == 1
    several = ad.plan({**LARGE, "student": {"model": "lab/Large-7B"}, "train": {"token_budget": 2048}}, device="h100")
    assert several.devices > 1
    assert f"it takes {several.devices} of them" in "\n".join(several.lines)
    none = ad.plan(
        {**LARGE, "student": {"model": "lab/Large-7B"}, "train": {"token_budget": 65536, "tasks": 64}}, device="a100"
    )
    assert none.devices == 0
    assert "lower train.token_budget" in "\n".join(none.lines)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("plan") / "r", **{"train.iterations": 2, "eval.every": 0})[0]


def test_lengths_are_those_of_a_run_that_was_made(played: Path) -> None:
    found, items = like(played, 1), [t for name in ("iter-000001", "iter-000002") for t in ad.load_run(played).read(name)]
    assert found.turns == pytest.approx(sum(len(t.turns) for t in items) / len(items))
    assert found.written == pytest.approx(sum(t.n_action_tokens for t in items) / len(items))
    assert found.read == pytest.approx(sum(len(t.stream().ids) for t in items) / len(items))
    assert 0 < found.environment < 1
    assert allowed(ad.experiment(BASE)).read >= found.read
    assert (found.contexts, found.passed) == (1, 1)  # a sequence an episode, and by itself in a pass of one token
    assert like(played, 10**6).passed == 1  # nothing is padded, and they are too short to share


def test_a_window_makes_several_short_contexts_of_an_episode(tmp_path: Path) -> None:
    window = {"env.view": {"kind": "window", "pairs": 1}, "env.max_context": 160}
    small = {"train.iterations": 1, "sampling.max_tokens": 3, "eval.every": 0, "eval.tasks": 1, "student.sft.demonstrations": 4}
    folder = run(tmp_path / "r", **window, **small)[0]
    found, played = like(folder, 1), ad.load_run(folder).read("iter-000001")
    assert found.contexts == sum(len(t.turns) for t in played) / len(played) > 1  # each of its turns is fresh
    assert found.context == round(found.read / found.contexts) <= 160


def test_this_machine_is_measured_and_what_it_says_is_finite(played: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", str(played / "experiment.yaml"), "--like", str(played), "--train.tasks", "3"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "this machine" in said
    assert "what binds: time: " in said
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(value >= 0 for value in found["seconds"].values())
    assert found["hours"] > 0
    assert found["peak"] > found["bytes"]["process"] > 1e8


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--device", "h10"], "no figures of device 'h10'; did you mean 'h100'?"),
        (["--like", "nowhere"], "there is no run folder 'nowhere'"),
        (["--student.model", "nobody/knows"], "its name does not tell it"),
        (["--train.taks", "3"], "unknown field 'train.taks'; did you mean 'tasks'?"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    options: list[str], says: str, played: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", str(played / "experiment.yaml"), *options]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "early"),
    [
        ("opd-exact", False),
        ("gkd", False),
        ("dckd", False),
        ("opd", True),
        ("sod", True),
        ("tip-soft-or", True),
        ("grpo", True),
    ],
)
def test_a_pass_of_the_student_is_counted_where_a_method_reads_what_it_gives(method: str, early: bool) -> None:
    assert reads_early(Method.load(method)) == early


def test_what_is_not_counted_is_said_and_small_numbers_can_be_read(played: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", str(played / "experiment.yaml"), "--like", str(played), "--device", "h100", "--engine.overlap", "true"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "note: engine.overlap is not counted" in said
    assert " K" in next(line for line in said.splitlines() if line.startswith("models: "))
    assert "0.00 h" not in said
    about = ad.experiment(LARGE, {"engine": {"teacher": "http://127.0.0.1:1/v1"}, "method": "opd"})
    assert ad.plan(about, device="h100").notes[0].startswith("student and teacher are counted as if both were in this process")
