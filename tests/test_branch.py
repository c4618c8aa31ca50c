"""Counterfactual branches: what was played stands as it was sampled, and another policy goes on from there."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from agentdistill import api, cli
from agentdistill.branch import branch
from agentdistill.chat import Chat
from agentdistill.errors import UserError
from agentdistill.policies.base import SamplingParams
from agentdistill.policies.model import CausalLM
from agentdistill.replay import replay
from agentdistill.rollout import Limits, Rollout, Task
from agentdistill.store import Store
from agentdistill.training.state import save_model
from agentdistill.trajectory import Trajectory

PARAMS = SamplingParams()
WRONG = ["x", "3", "y", "4", "z"]


def secret(seed: int) -> int:
    return random.Random(seed).randrange(16)


def lost(chat: Chat, make_rollout: Callable[..., Rollout], seeds: list[int]) -> list[Trajectory]:
    """Episodes in which nothing right was said in five messages."""
    rollout = make_rollout(chat, lambda key, turn: WRONG[turn], Limits(max_turns=5))
    return rollout.run([Task(seed, 1, group=i) for i, seed in enumerate(seeds)], PARAMS, "play")


def test_another_policy_goes_on_where_the_kept_messages_end(chat: Chat, make_rollout: Callable[..., Rollout]) -> None:
    seeds = [seed for seed in range(20) if secret(seed) not in (3, 4)][:5]
    parents = lost(chat, make_rollout, seeds)
    winner = make_rollout(chat, lambda key, turn: str(secret(seeds[key])), Limits(max_turns=5))
    found = branch(winner, parents, 2, PARAMS)
    assert (found.ended, found.differences) == (0, [])
    for parent, child in zip(parents, found.trajectories, strict=True):
        assert (child.parent, child.seed, child.group, child.prefix_turns) == (parent.id, parent.seed, parent.group, 2)
        assert [t.author for t in child.turns] == ["earlier", "earlier", "student"]
        assert child.success
        assert not parent.success
        for old, new in zip(parent.turns[:2], child.turns, strict=False):
            assert (new.action_ids, new.prompt_ids, new.observation) == (old.action_ids, old.prompt_ids, old.observation)
        assert child.n_action_tokens == len(child.turns[2].action_ids)
    assert replay(found.trajectories).exact
    assert found.kept(parents) == parents


def test_branching_touches_no_parent(chat: Chat, make_rollout: Callable[..., Rollout]) -> None:
    parents = lost(chat, make_rollout, [2, 5])
    before = copy.deepcopy(parents)
    branch(make_rollout(chat, lambda key, turn: "9", Limits(max_turns=3)), parents, 1, PARAMS)
    assert parents == before


def test_episodes_that_were_over_by_then_are_counted_and_have_no_branch(
    chat: Chat, make_rollout: Callable[..., Rollout]
) -> None:
    parents = lost(chat, make_rollout, [2, 5])
    parents[0].turns = parents[0].turns[:2]
    found = branch(make_rollout(chat, lambda key, turn: "9", Limits(max_turns=6)), parents, 2, PARAMS)
    assert found.ended == 1
    assert [t.parent for t in found.trajectories] == [parents[1].id]


def test_an_episode_that_does_not_repeat_itself_is_told_and_has_no_branch(
    chat: Chat, make_rollout: Callable[..., Rollout]
) -> None:
    parents = lost(chat, make_rollout, [2, 5])
    parents[1].turns[1].observation = "once upon a time"
    found = branch(make_rollout(chat, lambda key, turn: "9", Limits(max_turns=6)), parents, 3, PARAMS)
    assert [t.parent for t in found.trajectories] == [parents[0].id]
    (difference,) = found.differences
    assert (difference.trajectory, difference.turn, difference.what) == (parents[1].id, 1, "observation")


def test_a_tokenizer_to_which_the_tokens_mean_something_else_encodes_the_messages_anew(
    chat: Chat, chatml: Chat, make_rollout: Callable[..., Rollout]
) -> None:
    talker = make_rollout(chat, lambda key, turn: "higher lower", Limits(max_turns=3))
    parents = talker.run([Task(2, 1)], PARAMS, "play")
    found = branch(make_rollout(chatml, lambda key, turn: "9", Limits(max_turns=4)), parents, 2, PARAMS)
    child = found.trajectories[0]
    assert [t.action for t in child.turns[:2]] == ["higher lower"] * 2
    assert [chatml.decode(t.action_ids) for t in child.turns[:2]] == ["higher lower"] * 2
    assert child.turns[0].action_ids != parents[0].turns[0].action_ids


def test_other_environments_and_turns_below_0_are_refused(chat: Chat, make_rollout: Callable[..., Rollout]) -> None:
    parents = lost(chat, make_rollout, [2])
    rollout = make_rollout(chat, lambda key, turn: "9", size=4)
    with pytest.raises(UserError, match=r"'play/0000' was played in lab/Guess-v0 .*'size': 4"):
        branch(rollout, parents, 1, PARAMS)
    with pytest.raises(UserError, match="turn is -1"):
        branch(rollout, parents, -1, PARAMS)


@pytest.fixture
def played(tmp_path: Path, make_lm: Callable[[int], CausalLM]) -> tuple[Path, Path]:
    """A rollout of one real model, and the folder of another."""
    for seed in (0, 1):
        save_model(tmp_path / f"lm{seed}", make_lm(seed))
    out = tmp_path / "played"
    api.rollout(
        str(tmp_path / "lm0"), "lab/Guess-v0", out=out, tasks=3, max_turns=4, max_tokens=4, max_context=256, split="test",
        say=lambda _: None,
    )  # fmt: skip
    return out, tmp_path / "lm1"


def test_branches_of_a_stored_rollout_stand_beside_their_parents(played: tuple[Path, Path], tmp_path: Path) -> None:
    run, model = played
    said: list[str] = []
    found = api.branch(run, str(model), 2, out=tmp_path / "out", say=said.append)
    store = Store(tmp_path / "out" / "store")
    assert store.read("branch") == found.trajectories
    assert [t.id for t in store.read("parents")] == [t.parent for t in found.trajectories]
    assert [t.seed for t in store.read("parents")] == [t.seed for t in found.trajectories]
    assert all(len(t.turns) == 4 and t.policy.endswith("lm1") for t in found.trajectories)
    assert "0 did not repeat themselves" in said[-1]
    assert api.replay(tmp_path / "out", say=lambda _: None).exact
    with pytest.raises(UserError, match="already holds a result"):
        api.branch(run, str(model), 2, out=tmp_path / "out")
    with pytest.raises(UserError, match=r"none of the 3 episodes .* 3 were over by then"):
        api.branch(run, str(model), 4, out=tmp_path / "none", say=lambda _: None)


def test_the_command_line_asks_for_all_that_a_branch_needs(played: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    run, model = played
    assert cli.main(["replay", str(run), "--policy", str(model)]) == 1
    assert "give both" in capsys.readouterr().err
    assert cli.main(["replay", str(run), "--turn", "2"]) == 1
    assert "--turn is for a --policy" in capsys.readouterr().err
    assert cli.main(["replay", str(run), "--policy", str(model), "--turn", "1", "--out", str(tmp_path / "o")]) == 0
    assert "branches succeeded" in capsys.readouterr().out
