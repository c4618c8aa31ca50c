"""What an experiment will cost, in words and numbers; how near it comes is measured by `benchmarks/plan.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import agentdistill as ad
from agentdistill import cli
from agentdistill.cost.shape import shape_of
from tests.cost.test_memory import MODELS
from tests.needs import needs

SMALL = {**MODELS, "teacher": {"model": "lab/Small-0.6B"}, "train": {"token_budget": 2048, "tasks": 4}}


def said(plan: ad.Plan) -> str:
    return "\n".join(plan.lines)


def test_what_fits_one_device_is_one_process() -> None:
    fits = ad.plan({**SMALL, "student": {"model": "lab/Small-0.6B"}}, device="h100")
    assert (fits.devices, fits.ranks, len(fits.roles)) == (1, 1, 1)
    assert "it fits one" in said(fits)


def test_what_fits_no_single_device_takes_the_fewest_ranks_that_hold_it() -> None:
    several = ad.plan({**SMALL, "student": {"model": "lab/Large-5B"}}, device="h100")
    assert several.devices == several.ranks == several.fewest > 1
    assert f"it takes {several.devices} of them, for {several.ranks} trainer ranks" in said(several)
    assert "memory of each of ranks 1 to " if several.ranks > 2 else "memory of rank 1" in said(several)
    fewer = ad.plan({**SMALL, "student": {"model": "lab/Large-5B"}}, device="h100", ranks=several.ranks - 1)
    assert fewer.devices == 0
    assert f"it does not fit; with {several.ranks} trainer ranks it does" in said(fewer)
    more = ad.plan({**SMALL, "student": {"model": "lab/Large-5B"}}, device="h100", ranks=2 * several.ranks)
    assert more.devices == 2 * several.ranks
    assert more.peak < several.peak
    assert more.seconds["update"] < several.seconds["update"]


def test_what_no_rank_holds_is_told_with_the_remedy() -> None:
    weights = ad.plan({**SMALL, "student": {"model": "lab/Large-14B"}, "teacher": {"model": "lab/Large-7B"}}, device="h100")
    assert weights.devices == 0
    assert "no number of them holds it, for the weights of rank 0 alone are" in said(weights)
    assert "as actors of a Ray cluster" in said(weights)
    activations = {**MODELS, "train": {"token_budget": 65536, "tasks": 512},
                   "env": {"id": "agentdistill/ALFWorld-v0", "max_context": 65536}}  # fmt: skip
    none = ad.plan(activations, device="a100-40gb")
    assert none.devices == 0
    assert "rank 0 would need all of 'playing'; lower train.tasks" in said(none)


def test_a_ray_cluster_has_a_device_for_each_actor_or_the_share_that_it_was_given() -> None:
    needs("ray")
    sizes = {"samplers": 4, "teachers": 2, "trainers": 8}
    about = {**SMALL, "student": {"model": "lab/Large-7B"}, "teacher": {"model": "lab/Large-7B"}}
    plan = ad.plan({**about, "engine": {"kind": "ray", "ray": sizes}}, device="h100")
    assert plan.devices == 4 + 2 + 8
    assert "memory of driver (on a host)" in said(plan)
    assert "memory of each of 4 samplers" in said(plan)
    assert "for 8 trainer ranks" in said(plan)
    half = ad.plan({**about, "engine": {"kind": "ray", "ray": {**sizes, "gpus_per_sampler": 0.5}}}, device="h100")
    assert half.devices == 2 + 2 + 8
    assert {each["name"] for each in plan.as_dict()["roles"]} == {"driver", "trainer", "sampler", "teacher lab/Large-7B"}
    assert (
        json.loads(json.dumps(plan.as_dict()))["roles"][-1]["bytes"]["teachers and references"]
        == 4 * shape_of("lab/Large-7B").parameters
    )


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
    assert len(found["roles"]) == 1


def test_ranks_of_this_machine_share_it(played: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", str(played / "experiment.yaml"), "--like", str(played), "--ranks", "2"]
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert "memory of rank 0, GiB: " in text
    assert "memory of rank 1, GiB: " in text
    assert "all of it fits one" in text
    assert "between processes" in text
    assert "note: all processes are on this machine" in text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--device", "h10"], "no figures of device 'h10'; did you mean 'h100'?"),
        (["--like", "nowhere"], "there is no run folder 'nowhere'"),
        (["--ranks", "0"], "a plan is for 1 to 1024 trainer ranks, not 0"),
        (["--student.model", "nobody/knows"], "its name does not tell it"),
        (["--train.taks", "3"], "unknown field 'train.taks'; did you mean 'tasks'?"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    options: list[str], says: str, played: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", str(played / "experiment.yaml"), *options]) == 1
    assert says in capsys.readouterr().err


def test_what_is_not_counted_is_said_and_small_numbers_can_be_read(played: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", str(played / "experiment.yaml"), "--like", str(played), "--device", "h100", "--engine.overlap", "true"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "note: engine.overlap is not counted" in said
    assert " K" in next(line for line in said.splitlines() if line.startswith("models: "))
    assert "0.00 h" not in said
    about = ad.experiment(MODELS, {"engine": {"teacher": "http://127.0.0.1:1/v1"}, "method": "opd"})
    notes = ad.plan(about, device="h100").notes
    assert notes[0].startswith("student and teacher are counted as if both were in this process")
    assert "--like takes it from a run" in notes[-1]
