"""Comparisons pair the same tasks, tell types apart, can be read again, and say what they cannot tell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agentdistill import api, cli
from agentdistill.compare import compare, load_comparison
from agentdistill.errors import UserError
from agentdistill.store import Store
from agentdistill.trajectory import StopReason, Trajectory, Turn


def played(
    outcomes: dict[int, list[float]] | np.ndarray, kinds: tuple[str, ...] = ("",), **changes: object
) -> list[Trajectory]:
    """Episodes by task seed; one of worth 1 is a success. Seeds take the kinds in turn."""
    by_seed = outcomes if isinstance(outcomes, dict) else {seed: [value] for seed, value in enumerate(outcomes)}
    return [
        Trajectory(
            f"e/{seed}-{k}", str(changes.get("env_id", "lab/Guess-v0")), seed, str(seed), [],
            [Turn([1], [2], "a", "b", reward=float(value))], StopReason.TERMINATED, success=value == 1,
            env_options=dict(changes.get("env_options", {})), task_type=kinds[seed % len(kinds)],
        )
        for seed, values in by_seed.items() for k, value in enumerate(values)
    ]  # fmt: skip


def test_episodes_of_one_task_count_as_one_value():
    first = {seed: [1.0, 0.0, 0.0, 0.0] for seed in range(30)}
    second = {seed: [1.0, 1.0, 0.0, 0.0] for seed in range(30)}
    found = compare(played(first), played(second))
    assert (found.tasks, found.difference, found.better, found.worse) == (30, 0.25, 30, 0)
    doubled = compare(*(played({seed: values * 2 for seed, values in each.items()}) for each in (first, second)))
    assert (doubled.difference, doubled.p_value, doubled.pairs) == (found.difference, found.p_value, found.pairs)
    assert doubled.high - doubled.low < found.high - found.low  # chance is less in the mean of eight


def test_exchanging_the_sides_turns_the_sign_only():
    rng = np.random.default_rng(5)
    a, b = (rng.integers(0, 2, 200).astype(float) for _ in range(2))
    there, back = compare(played(a), played(b)), compare(played(b), played(a))
    assert (there.difference, there.p_value, there.detectable) == (-back.difference, back.p_value, back.detectable)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.01)


def test_only_tasks_that_both_have_are_compared():
    first, second = {s: [1.0] for s in range(10)}, {s: [0.0] for s in range(5, 20)}
    found = compare(played(first), played(second))
    assert (found.tasks, found.left_out, found.difference) == (5, 15, -1.0)


def test_a_few_tasks_without_a_difference_do_not_promise_to_show_small_ones():
    found = compare(played(np.zeros(4)), played(np.zeros(4)))
    assert 0.4 < found.detectable < 0.8


@pytest.mark.parametrize("changes", [{"env_id": "lab/Other-v0"}, {"env_options": {"size": 4}}])
def test_other_environments_or_options_are_other_tasks(changes: dict[str, object]):
    values = np.ones(10)
    with pytest.raises(UserError, match=r"0 tasks in common \(10 and 10 in all\)"):
        compare(played(values), played(values, **changes))


def test_the_verdict_says_what_can_and_cannot_be_told():
    rng = np.random.default_rng(6)
    a = rng.integers(0, 2, 400).astype(float)
    clear = compare(played(a), played(np.maximum(a, rng.random(400) < 0.5)))
    assert "higher" in clear.verdict
    assert "several seeds" in clear.verdict
    none = compare(played(a), played(rng.permutation(a)))
    assert "cannot be told apart on these 400 tasks" in none.verdict
    assert f"{100 * none.detectable:.2g} points would be seen" in none.verdict


def test_rewards_can_be_compared():
    found = compare(played(np.array([0.2, 0.4, 0.6])), played(np.array([0.3, 0.5, 0.7])), "reward")
    assert (found.measure, found.better) == ("reward", 3)
    assert found.difference == pytest.approx(0.1)


def test_two_evaluations_on_disk_are_compared_and_the_result_can_be_read_again(tmp_path: Path, capsys):
    Store(tmp_path / "a" / "store").write("eval-after", played(np.zeros(40)))
    Store(tmp_path / "b" / "store").write("eval", played(np.ones(40)))
    out = tmp_path / "new" / "ab.json"
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "success 0.0 %" in said
    assert "The second is higher on these 40 tasks" in said
    assert json.loads(out.read_text())["sides"] == [str(tmp_path / "a"), str(tmp_path / "b")]
    again = load_comparison(out)
    assert (again.difference, again.first, again.second, len(again.pairs)) == (1.0, 0.0, 1.0, 40)
    assert cli.main(["show", str(out)]) == 0
    assert again.verdict in capsys.readouterr().out
    Store(tmp_path / "a" / "store").write("eval-before", played(np.zeros(40)))
    assert api.compare(f"{tmp_path}/a:eval-before", f"{tmp_path}/a", say=lambda _: None).difference == 0.0


def test_a_folder_without_an_evaluation_is_refused(tmp_path: Path, capsys):
    Store(tmp_path / "a" / "store").write("iter-000001", played(np.zeros(4)))
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "a")]) == 1
    assert "holds no evaluation; it holds iter-000001; name a batch as FOLDER:BATCH" in capsys.readouterr().err


def test_a_stored_comparison_is_the_one_that_was_made(tmp_path: Path):
    rng = np.random.default_rng(8)
    sides = [{seed: rng.integers(0, 2, 3).astype(float).tolist() for seed in range(30)} for _ in range(2)]
    same = {seed: [5.0] for seed in range(4)}
    for found in (compare(*(played(s, ("heat", "cool")) for s in sides)), compare(played(same), played(same), "reward")):
        (tmp_path / "c.json").write_text(json.dumps(found.as_dict(), allow_nan=False))
        assert load_comparison(tmp_path / "c.json") == found


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"difference": 1}', '{"by_type": 3}'])
def test_what_is_no_comparison_is_refused(text: str, tmp_path: Path):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UserError, match="is no comparison, or a damaged one; `compare A B --out FILE` writes one"):
        load_comparison(tmp_path / "c.json")
    with pytest.raises(UserError, match="there is no comparison"):
        load_comparison(tmp_path / "none.json")


def test_types_are_compared_by_themselves_with_p_values_that_know_of_each_other():
    first = played(np.zeros(60), ("cool", "heat", "look"))
    gained = np.array([float(seed % 3 == 1 and seed < 45) for seed in range(60)])
    found = compare(first, played(gained, ("cool", "heat", "look")))
    assert list(found.by_type) == ["cool", "heat", "look"]
    heat = found.by_type["heat"]
    alone = compare([t for t in first if t.task_type == "heat"], played({s: [g] for s, g in enumerate(gained) if s % 3 == 1}))
    assert (heat.tasks, heat.difference, heat.low, heat.high) == (20, 0.75, alone.low, alone.high)
    assert heat.p_value == alone.p_value
    assert heat.adjusted == pytest.approx(3 * heat.p_value)
    assert found.by_type["cool"].adjusted == 1
    (line,) = [line for line in found.lines if line.startswith("  heat: ")]
    assert "+75 points" in line
    assert line.endswith("for 3 types together; told apart on 20 tasks")
    assert compare(played(gained), played(gained)).by_type == {}


def test_a_type_of_one_task_has_no_comparison_of_its_own():
    values = {seed: [float(seed % 3 == 0)] for seed in range(9)}
    first, second = played(values), played(values)
    for side in (first, second):
        side[4].task_type = "rare"
    assert list(compare(first, second).by_type) == [""]


def test_a_difference_of_the_same_size_everywhere_has_no_interval_to_promise():
    found = compare(played({s: [3.0] for s in range(12)}), played({s: [5.0] for s in range(12)}), "reward")
    assert found.low == -np.inf
    assert found.p_value == pytest.approx(2 / 2**12)
    assert "interval unknown" in found.verdict
    assert "nothing is known of how far others might" in found.verdict


def test_rewards_beyond_0_to_1_do_not_depend_on_their_unit():
    rng = np.random.default_rng(9)
    a, b = rng.normal(3, 1, 40), rng.normal(3.4, 1, 40)
    small, large = (compare(played(k * a), played(k * b), "reward") for k in (1, 1000))
    assert (large.low, large.high, large.detectable) == pytest.approx(
        (1000 * small.low, 1000 * small.high, 1000 * small.detectable)
    )
    assert large.p_value == small.p_value


def test_an_episode_without_a_reward_is_named():
    side = played(np.array([1.0, float("nan"), 0.0]))
    with pytest.raises(UserError, match=r"episode 'e/1-0' has no reward that could be compared \(nan\)"):
        compare(side, side, "reward")


def test_other_settings_on_the_two_sides_are_told(tmp_path: Path, capsys):
    for name, turns, temperature in (("a", 4, 0.0), ("b", 8, 0.0)):
        Store(tmp_path / name / "store").write("eval", played(np.arange(20) % 2.0))
        about = {"env": {"id": "lab/Guess-v0", "max_turns": turns}, "eval": {"temperature": temperature, "samples": 1}}
        (tmp_path / name / "experiment.yaml").write_text(json.dumps(about))
    found = api.compare(tmp_path / "a", tmp_path / "b")
    assert found.notes == ["max_turns was 4 for the first and 8 for the second, so the difference may be due to that too"]
    assert "note: max_turns was 4" in capsys.readouterr().out
    assert api.compare(tmp_path / "a", tmp_path / "a").notes == []
