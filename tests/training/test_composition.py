"""Every preset with something missing that it needs: one sentence that names both sides, when the experiment is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agentdistill.config import override, parse_experiment
from agentdistill.errors import UserError
from agentdistill.signals import PRESETS, Method
from agentdistill.signals.method import ORIGINS
from agentdistill.store import Store
from agentdistill.training.stored import StoredEpisodes
from tests.training.looped import checked

# By hand, from the papers and not from what the code says that it needs.
REWARD_ONLY = {"grpo", "dr-grpo", "rloo"}
COMPARES = REWARD_ONLY | {"sod", "sod-exact", "kdrl", "kdrl-masked", "rlad", "dckd"}
READS_REWARDS = COMPARES | {"gated-opd"}
REFERENCE = {"exopd", "gopd", "adpa"}
SAMPLED = REWARD_ONLY | {
    "opd", "tcod", "tcod-f2b", "tcod-b2f", "sod", "exopd", "gopd", "iw-opd", "lightning", "gated-opd", "kdrl", "kdrl-masked",
    "rlad", "dasd",
}  # fmt: skip
"""Presets that read of a teacher no more than what it says of the sampled tokens."""
CURRICULA = {"tcod-f2b", "tcod-b2f"}
ALONE = {"bd-kd", "dckd", "exopd", "gopd", "adpa", "rlad", "dasd"} | REWARD_ONLY
"""Presets that learn something where the teacher is the student as it is: by a reward, a reference or imitation; DASD is
refused for another reason."""
EVERY = sorted(name for name in PRESETS if ORIGINS[name].source)


def complaint(preset: str, **changes: Any) -> str:
    """What is said against an experiment with everything but what the changes take away; empty where nothing is."""
    about: dict[str, Any] = {
        "env": {"id": "lab/Guess-v0", "max_turns": 4}, "student": {"model": "lab/s"}, "teacher": {"model": "lab/t"},
        "reference": {"model": "lab/r"}, "method": preset, "train": {"tasks": 2, "rollouts": 2},
    }  # fmt: skip
    if preset == "dasd":
        about["mixed"] = {"most": 1}
    said = ""
    try:
        checked(override(about, changes))
    except UserError as error:
        said = str(error)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("preset", EVERY)
def test_with_all_it_needs_a_preset_is_accepted(preset: str) -> None:
    assert complaint(preset) == ""


@pytest.mark.parametrize("preset", EVERY)
def test_without_a_teacher_it_is_refused_unless_it_learns_from_rewards_alone(preset: str) -> None:
    said = complaint(preset, teacher=None)
    if preset in REWARD_ONLY:
        assert said == ""
    elif preset == "dasd":
        assert said.startswith("mixed hands an episode over to the teacher, and the experiment has no teacher")
    else:
        assert said.startswith(f"method '{preset}' needs a teacher's scores, and the experiment has no teacher section (")


@pytest.mark.parametrize("preset", EVERY)
def test_without_a_reference_only_what_reads_one_is_refused(preset: str) -> None:
    said = complaint(preset, reference=None)
    expected = f"method '{preset}' needs a reference's scores, and the experiment has no reference section (" if (
        preset in REFERENCE
    ) else ""  # fmt: skip
    assert said.startswith(expected)
    assert bool(said) == (preset in REFERENCE)


@pytest.mark.parametrize("preset", EVERY)
def test_with_one_rollout_a_task_only_what_compares_rollouts_is_refused(preset: str) -> None:
    said = complaint(preset, **{"train.rollouts": 1})
    assert bool(said) == (preset in COMPARES)
    if said:
        assert said.startswith(f"method '{preset}' ")
        assert "train.rollouts is 1; set it to 2 or more" in said


@pytest.mark.parametrize("preset", EVERY)
def test_the_students_own_weights_without_the_plan_are_refused_where_nothing_else_teaches(preset: str) -> None:
    said = complaint(preset, teacher={"model": "live"})
    if preset in ALONE - {"dasd"}:
        assert said == ""
    elif preset == "dasd":
        assert "the teacher is model: live" in said
    else:
        assert said.startswith(f"method '{preset}' distils from the student's own weights (teacher.model: live), which say")
        assert complaint(preset, teacher={"model": "live", "privileged": True}) == ""
    held = complaint(preset, teacher={"model": "initial"})  # beside a reward, it holds the student back later
    assert bool(held) == (bool(said) and preset not in COMPARES)


@pytest.mark.parametrize("preset", EVERY)
def test_with_a_stored_scorer_without_top_k_only_sampled_signals_are_accepted(preset: str, guess_run: Path) -> None:
    stored = {"rollouts": {"store": str(guess_run), "scorer": "tiny:32x2"}, "teacher": None, "mixed": None}
    said = complaint(preset, **stored)
    if preset in CURRICULA:
        assert said.startswith(f"schedule '{preset}' decides how episodes are played, and rollouts.store has played ones")
    elif preset in SAMPLED:
        assert said == ""  # who wrote what DASD imitates is known once the store is read
    else:
        assert re.search(" needs? the teacher's full distributions, and the store ", said)
        assert said.startswith(("divergence '", "baseline '", "selection '"))
        assert "scores of sampled tokens by 'tiny:32x2' only" in said


@pytest.mark.parametrize("preset", EVERY)
def test_stored_episodes_without_a_reward_are_refused_where_one_is_read(
    preset: str, guess_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    method = Method.load(preset)
    assert ("rewards" in method.needs) == (preset in READS_REWARDS)
    if preset not in READS_REWARDS | {"opd"}:
        return
    folder = tmp_path_factory.mktemp("unrewarded")
    rows = Store(guess_run / "store").read("iter-000001")
    for row in rows:
        row.turns[0].reward = float("nan")
    Store(folder / "store").write("iter-000001", rows)
    about: dict[str, Any] = {
        "env": "lab/Guess-v0", "student": {"model": "lab/s"}, "teacher": {"model": "lab/t"}, "method": preset,
        "rollouts": {"store": str(folder)}, "train": {"tasks": 2, "rollouts": 2},
    }  # fmt: skip
    config = parse_experiment(about)
    stored = StoredEpisodes(config.rollouts, 2, 0) if config.rollouts else None
    assert stored is not None
    if preset == "opd":
        stored.require(config, method, [])
        return
    with pytest.raises(UserError) as error:
        stored.require(config, method, [])
    assert str(error.value).startswith(f"method '{preset}' needs episode rewards and groups (")
    assert f"and 6 of 6 episodes in the store {folder}" in str(error.value)
