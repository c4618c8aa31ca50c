"""What another method would have given to stored episodes, against loops over the stored numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentdistill import api
from agentdistill.cli import main
from agentdistill.errors import UserError
from agentdistill.signals import TokenTable
from agentdistill.store import Store
from agentdistill.training.score import trainable
from agentdistill.training.what_if import Tally, parse_method
from agentdistill.trajectory import Trajectory


def by_hand(rows: list[Trajectory], scorer: str, delta: float) -> dict[int, list[tuple[float, list[float]]]]:
    """SOD by its definition: by step index, each step's weight and its tokens' log-ratios `log π − log T`."""
    out: dict[int, list[tuple[float, list[float]]]] = {}
    for trajectory in rows:
        scores, steps = iter(trajectory.scores[scorer].logprobs.tolist()), []
        for turn in trajectory.turns:
            steps.append([p - next(scores) for p in turn.logprobs_t1])
        d = [float(np.mean(np.abs(step))) for step in steps]
        product = 1.0
        for k, step in enumerate(steps):
            product *= (d[k - 1] + 1e-6) / (d[k] + 1e-6) if k else 1.0
            out.setdefault(k, []).append((1.0 if not k else min(product, 1 + delta), step))
    return out


@pytest.mark.parametrize("delta", [0.2, 2.0])
def test_weights_and_divergences_are_those_of_the_definition(delta: float, guess_run: Path) -> None:
    found = api.what_if(guess_run, f"method=sod,delta={delta},rl=none").as_dict()
    store = Store(guess_run / "store")
    rows = trainable([t for batch in ("iter-000001", "iter-000002") for t in store.read(batch)])
    steps = by_hand(rows, "tiny:32x2", delta)
    assert (found["episodes"], found["tokens"]) == (12, sum(t.n_action_tokens for t in rows))
    assert len(found["steps"]) == len(steps) > 1
    for row in found["steps"]:
        weights, tokens = zip(*steps[row["step"]], strict=True)
        flat = [x for each in tokens for x in each]
        assert row["n"] == len(weights)
        assert row["what_if"]["weight"] == pytest.approx(np.mean(weights))
        assert row["what_if"]["small"] == pytest.approx(np.mean(np.array(weights) < 0.01))
        assert row["what_if"]["advantage"] == pytest.approx(
            np.mean([-w * x for w, each in zip(weights, tokens, strict=True) for x in each])
        )
        assert row["kl"] == pytest.approx(np.mean(flat))
    assert [turn["kl"] for turn in found["turns"]] == [row["kl"] for row in found["steps"]]  # a message a turn


def test_a_step_is_small_below_a_hundredth() -> None:
    where = {"trajectory": [0, 0, 0], "turn": [0, 1, 2], "step": [0, 1, 2], "is_action": [True] * 3}
    table = TokenTable({**where, "logprob": [-1.0] * 3, "teacher": [-1.005, -2.0, -1.1]})  # weights 1, 0.005, 0.05
    tally = Tally()
    tally.add(parse_method("method=sod,rl=none"), table, 1)
    assert [tally.at(step)["small"] for step in range(3)] == [0.0, 1.0, 0.0]


def test_the_runs_own_method_stands_beside_it(guess_run: Path) -> None:
    found = api.what_if(guess_run, "delta=0.9").as_dict()
    assert found["methods"]["used"]["step_weight"]["delta"] == 0.2
    assert found["methods"]["what_if"]["step_weight"]["delta"] == 0.9
    assert found["methods"]["what_if"]["rl"]["kind"] == "grpo"
    same = api.what_if(guess_run, "method=sod").as_dict()
    assert all(row["used"] == row["what_if"] for row in same["steps"])
    assert [row["used"] for row in same["steps"]] == [row["used"] for row in found["steps"]]


def test_a_method_of_rewards_alone_weighs_every_step_alike(guess_run: Path) -> None:
    found = api.what_if(guess_run, "method=grpo", batch="iter-000001").as_dict()
    assert {row["what_if"]["weight"] for row in found["steps"]} == {1.0}
    assert found["episodes"] == 6


def test_coefficients_are_those_of_each_batchs_iteration(guess_run: Path) -> None:
    word = "method=opd,kd_coef={kind: linear, start: 0, by: 1}"
    plain, grown = (api.what_if(guess_run, each, batch="iter-000002").as_dict() for each in ("method=opd", word))
    for a, b in zip(plain["steps"], grown["steps"], strict=True):
        assert b["what_if"]["advantage"] == pytest.approx(2 * a["what_if"]["advantage"])


def test_another_scorers_scores_can_be_taken_and_have_to_be_chosen_where_nobody_is_the_runs_own(
    guess_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(guess_run, tmp_path / "run"))
    for name in ("a", "b"):
        api.score(run, str(run / "student"), name=name, say=lambda _: None)
    (run / "experiment.yaml").write_text((run / "experiment.yaml").read_text().replace("tiny:32x2", "else"))
    own, other = (api.what_if(run, "method=opd", scorer=name).as_dict() for name in ("tiny:32x2", "a"))
    assert own["scorer"] == "tiny:32x2"
    assert other["turns"][0]["kl"] != own["turns"][0]["kl"]
    first = other["turns"][0]["kl"], other["steps"][0]["what_if"]["advantage"]
    assert first[1] == pytest.approx(-first[0])
    with pytest.raises(UserError, match=r"several scorers scored .*: tiny:32x2, a, b; say which by --scorer NAME"):
        api.what_if(run, "method=opd")
    with pytest.raises(UserError, match="has no scores by 'c'"):
        api.what_if(run, "method=opd", scorer="c")


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("method=tip-soft-or", "no column 'entropy'; it comes from a scorer that returns entropies"),
        ("method=vopd", "no column 'rkl'; it comes from a teacher that returns its full distribution"),
        ("method=exopd", "no column 'reference'"),
    ],
)
def test_a_method_that_reads_what_is_not_stored_is_refused_by_what_it_lacks(method: str, says: str, guess_run: Path) -> None:
    with pytest.raises(UserError, match=f"what that method makes of batch 'iter-000001' cannot be told .*{says}"):
        api.what_if(guess_run, method)


SPECS: dict[str, dict[str, Any]] = {
    "method=sod": {"preset": "sod"},
    "method=sod,delta=0.5": {"preset": "sod", "step_weight": {"delta": 0.5}},
    "method=sod, step_weight.delta=0.5 ,baseline=vopd": {"preset": "sod", "step_weight": {"delta": 0.5}, "baseline": "vopd"},
    "method=opd,kd_coef=0.5,gamma=0.9": {"preset": "opd", "kd_coef": 0.5, "signal": {"gamma": 0.9}},
    "method=opd,step_weight={kind: sod, delta: 0.5},floor=0.2": {
        "preset": "opd", "step_weight": {"kind": "sod", "delta": 0.5, "floor": 0.2},
    },
    "method=opd,step_weight=sod,step_weight.delta=0.3": {"preset": "opd", "step_weight": {"kind": "sod", "delta": 0.3}},
    "signal=opd": {"signal": "opd"},
}  # fmt: skip


@pytest.mark.parametrize("text", SPECS)
def test_a_method_in_a_word_is_the_one_in_an_experiment(text: str) -> None:
    from agentdistill.signals import Method

    assert parse_method(text) == Method.load(SPECS[text])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is not one"),
        ("sod", "'sod' is not one"),
        ("method=sod,delta", "'delta' is not one"),
        ("method=sodd", "did you mean 'sod'"),
        ("method=sod,dleta=1", "no setting 'dleta'; did you mean 'delta'"),
        ("method=sod,stepweight.delta=1", "no axis 'stepweight'; did you mean 'step_weight'"),
        ("method=sod,delta=-1", "delta"),
        ("method=sod,eps=1", "'eps' may mean step_weight.eps or rl.eps; say which"),
        ("method=sod,delta={a", "the value of delta is not valid YAML"),
    ],
)
def test_a_word_that_is_no_setting_is_refused(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_method(text)


def test_the_command_shows_tables_and_writes_them(guess_run: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "deep" / "what.json"
    assert main(["score", str(guess_run), "--what-if", "method=sod,delta=0.5", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "12 episodes" in printed
    assert "weight, used" in printed
    assert "share < 0.01, what if" in printed
    found = json.loads(out.read_text())
    assert found["run"] == str(guess_run)
    assert f"{found['steps'][1]['what_if']['weight']:.4f}" in printed
    assert f"{found['turns'][1]['kl']:.4f}" in printed
    assert main(["score", str(guess_run), "--scorer", "nobody", "--what-if", "method=sod"]) == 1
    assert "no scores by 'nobody'" in capsys.readouterr().err


def test_a_folder_that_trained_nothing_has_no_method_of_its_own(guess_run: Path, tmp_path: Path) -> None:
    Store(tmp_path / "run" / "store").write("rollout", Store(guess_run / "store").read("iter-000001"))
    found = api.what_if(tmp_path / "run", "method=sod").as_dict()
    assert list(found["methods"]) == ["what_if"]
    with pytest.raises(UserError, match="'' is not one"):
        api.what_if(tmp_path / "run", "")
