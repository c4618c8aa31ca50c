"""Two ranks over gloo against one process: the same losses, gradients, columns and weights, but for rounding."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentdistill.training.trainer import LocalTrainer
from tests.cluster.conftest import Pair
from tests.cluster.scenarios import LOOPS, model, play, weights
from tests.needs import needs_glibc

SUMS = ("loss", "grad_norm", "grad_norm_silent", "kl", "entropy", "kd_abs", "rl_abs", "clip_fraction", "log_ratio", "reward")
"""What of a record is a sum over tokens."""

FAINT = ("live", "average", "clipped")
"""Whose loss is what is left of terms that cancel: student and teacher are nearly one, or advantages of both signs add up."""
ROUNDING = 1e-7
"""Nats: that of a log-prob in fp32."""


@pytest.fixture(scope="module")
def ranked(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return pair.run(
        tmp_path_factory.mktemp("ranked"), " ".join([*LOOPS, "uneven", "alike", "refused", "absent", "unwritten", "kept"])
    )


def alone(name: str, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    return play(name, LocalTrainer, folder)


def gap(a: float, b: float) -> float:
    """Relative."""
    return abs(a - b) / max(abs(a), abs(b), 1e-300)


def apart(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], start: dict[str, torch.Tensor]) -> float:
    """How far two trainings ended from each other, as a share of how far they went."""
    between = math.sqrt(sum(float((one[name] - two[name]).square().sum()) for name in start))
    return between / math.sqrt(sum(float((one[name] - start[name]).square().sum()) for name in start))


@pytest.mark.parametrize("name", LOOPS)
def test_two_ranks_reproduce_one_process_over_five_steps(ranked: dict[str, Any], name: str, tmp_path: Path) -> None:
    ours, theirs = alone(name, tmp_path / "alone"), ranked[name]
    assert len(ours["records"]) == len(theirs["records"]) == 5
    for one, two in zip(ours["records"], theirs["records"], strict=True):
        assert one.keys() == two.keys()
        assert gap(one["loss"], two["loss"]) < 1e-5 or (name in FAINT and abs(one["loss"] - two["loss"]) < ROUNDING)
        for key in SUMS:
            if one.get(key) is not None:
                assert gap(one[key], two[key]) < 1e-4 or abs(one[key] - two[key]) < 1e-7, (one["iteration"], key)
        assert one["stop_reasons"] == two["stop_reasons"]
        assert one["action_tokens"] == two["action_tokens"]
    assert len({record["loss"] for record in theirs["records"]}) == 5
    assert apart(ours["weights"], theirs["weights"], weights(model(0))) < 1e-3
    if name == "clipped":
        assert all(0.01 < record["clip_fraction"] < 0.9 for record in theirs["records"])


def test_layers_computed_again_change_no_number(ranked: dict[str, Any]) -> None:
    for one, two in zip(ranked["exact"]["records"], ranked["recompute"]["records"], strict=True):
        assert one == two


def test_ranks_with_more_fewer_or_no_micro_batches_give_the_same_sums(ranked: dict[str, Any], tmp_path: Path) -> None:
    ours, theirs = alone("uneven", tmp_path), ranked["uneven"]
    for name in ("even", "odd", "one"):
        assert theirs[name] == pytest.approx(ours[name], rel=1e-5)
        assert min(theirs[name]) > 1e-6
    for name in ("less", "norm", "after"):
        assert theirs[name] == pytest.approx(ours[name], rel=1e-5)
    for name, column in ours["columns"].items():
        np.testing.assert_allclose(theirs["columns"][name], column, rtol=1e-5, atol=1e-6)
    assert np.isfinite(ours["columns"]["rkl"]).sum() > 20
    assert apart(ours["weights"], theirs["weights"], weights(model(0))) < 1e-3


def test_ranks_whose_rows_begin_alike_and_ranks_of_one_row_work_together(ranked: dict[str, Any], tmp_path: Path) -> None:
    ours, theirs = alone("alike", tmp_path), ranked["alike"]
    assert ours.keys() == theirs.keys() == {"plain", "recompute", "padded"}
    for found in (*ours.values(), *theirs.values()):
        assert found == pytest.approx(ours["padded"], rel=1e-5)


def test_what_one_rank_refuses_is_the_controllers_error_and_nothing_gathers(ranked: dict[str, Any], tmp_path: Path) -> None:
    ours, theirs = alone("refused", tmp_path), ranked["refused"]
    assert theirs["loss"].startswith("the loss at step 7 is nan (trajectories [")
    assert theirs["nothing"] == theirs["cleared"] == ours["nothing"] == 0
    assert theirs["gradient"] == ours["gradient"]
    assert theirs["gradient"].startswith("the gradient at step 7 is inf; the weights were not changed")
    assert theirs["kept"]
    assert theirs["next"] == pytest.approx(ours["next"], rel=1e-5)


def test_what_cannot_be_imported_on_one_rank_is_the_controllers_error(ranked: dict[str, Any]) -> None:
    assert "not on this machine" in ranked["absent"]["said"]
    assert math.isfinite(ranked["absent"]["next"])


def test_a_checkpoint_that_cannot_be_written_is_an_error_and_the_next_one_is_whole(ranked: dict[str, Any]) -> None:
    assert ranked["unwritten"]["said"] == "OSError"
    assert ranked["unwritten"]["files"] == [".metadata", "__0_0.distcp", "__1_0.distcp", "sharded"]


def test_a_rank_keeps_the_memory_that_it_frees(ranked: dict[str, Any]) -> None:
    needs_glibc()
    first, _, third = ranked["kept"]["faults"]
    assert third < 0.1 * first


CUT = ("exact", "clipped")


@pytest.fixture(scope="module")
def cut(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two iterations by two ranks, and by one process."""
    folder = tmp_path_factory.mktemp("cut")
    (folder / "two").mkdir()
    pair.run(folder / "two", " ".join(f"{name}:2" for name in CUT))
    for name in CUT:
        alone(f"{name}:2", folder / "one" / name)
    return folder


@pytest.mark.parametrize("name", CUT)
def test_one_process_goes_on_with_the_checkpoint_of_two_ranks(cut: Path, name: str, tmp_path: Path) -> None:
    shutil.copytree(cut / "two" / name, tmp_path / name)
    assert (tmp_path / name / "checkpoints" / "train-000002" / "sharded" / "__1_0.distcp").is_file()
    same_but_for_rounding(alone(name, tmp_path / "whole"), alone(name, tmp_path / name))


def test_two_ranks_go_on_with_the_checkpoint_of_one_process(pair: Pair, cut: Path, tmp_path: Path) -> None:
    shutil.copytree(cut / "one", tmp_path / "one")
    resumed = pair.run(tmp_path / "one", " ".join(CUT))
    for name in CUT:
        same_but_for_rounding(alone(name, tmp_path / name), resumed[name])


def test_two_ranks_go_on_with_their_own_checkpoint_to_the_same_numbers(
    pair: Pair, cut: Path, ranked: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(cut / "two", tmp_path / "two")
    resumed = pair.run(tmp_path / "two", " ".join(CUT))
    for name in CUT:
        assert resumed[name]["records"] == ranked[name]["records"]
        assert all(torch.equal(ranked[name]["weights"][key], tensor) for key, tensor in resumed[name]["weights"].items())


def same_but_for_rounding(whole: dict[str, Any], resumed: dict[str, Any]) -> None:
    assert [record["iteration"] for record in resumed["records"]] == [1, 2, 3, 4, 5]
    for a, b in zip(whole["records"], resumed["records"], strict=True):
        assert gap(a["loss"], b["loss"]) < 1e-5 or abs(a["loss"] - b["loss"]) < ROUNDING
        assert gap(a["grad_norm"], b["grad_norm"]) < 1e-4
    assert apart(whole["weights"], resumed["weights"], weights(model(0))) < 1e-3
