"""Episodes at their own pace: nobody waits for a slow environment, and what is played is what would be played in step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from agentdistill.chat import Chat
from agentdistill.errors import UserError
from agentdistill.modules import import_module
from agentdistill.policies.base import Request, Sample, SamplingParams
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scripted import ScriptedSampler
from agentdistill.pool import EnvPool, Workers
from agentdistill.rollout import Limits, Rollout, Task
from agentdistill.rollout_async import AsyncRollout
from agentdistill.trajectory import StopReason, Trajectory

GAMES = Path(__file__).with_name("games.py")
PARAMS = SamplingParams(max_tokens=16)


@pytest.fixture(scope="module")
def pool() -> Iterator[EnvPool]:
    import_module(str(GAMES))
    opened = EnvPool("lab/Odds-v0", workers=Workers(4))
    yield opened
    opened.close()


class Continuous(ScriptedSampler):
    """A scripted sampler that finishes one message at a time."""

    def begin(self, requests: Sequence[Request], params: SamplingParams) -> None:
        self.waiting = [*getattr(self, "waiting", []), *requests]
        self.params = params

    def advance(self) -> list[tuple[Request, Sample]]:
        now, self.waiting = self.waiting[:1], self.waiting[1:]
        return list(zip(now, self.generate(now, self.params), strict=True))


def essence(played: Sequence[Trajectory]) -> list[object]:
    """What was said, and how it ended."""
    turns = [[(turn.action_ids, turn.observation, turn.prompt_ids, turn.author) for turn in t.turns] for t in played]
    return [(t.id, t.task_id, t.stop_reason, t.success, t.prefix_turns, each) for t, each in zip(played, turns, strict=True)]


def test_the_others_play_on_while_an_environment_is_slow(pool: EnvPool, chat: Chat, tmp_path: Path) -> None:
    done = tmp_path / "done"

    def script(key: int, turn: int) -> str:
        if key == 0:
            return f"wait for {done}"  # and says whether it came to be, after ten seconds at most
        if key == 3 and turn == 4:
            done.touch()
        return f"{key} {turn}"

    params = SamplingParams(max_tokens=400)
    played = AsyncRollout(pool, Continuous(chat, script), chat, Limits()).run([Task(s, s) for s in range(4)], params, "b")
    assert played[0].turns[0].observation == "True"
    assert [len(t.turns) for t in played] == [1, 5, 5, 5]


def test_episodes_are_those_of_rollouts_in_step(pool: EnvPool, make_lm: Callable[[int], CausalLM]) -> None:
    lm = make_lm(0)
    chat = Chat(lm.tokenizer)
    tasks = [Task(5, 1), Task(5, 2), Task(6, 3, prefix=("a", "b")), Task(7, 4, max_turns=2), Task(8, 5), Task(9, 6)]
    limits = Limits(max_context=300)
    own = AsyncRollout(pool, TransformersSampler(lm), chat, limits, privileged=True).run(tasks, PARAMS, "b")
    step = Rollout(pool, TransformersSampler(lm), chat, limits, privileged=True).run(tasks, PARAMS, "b")
    assert essence(own) == essence(step)
    for ours, theirs in zip(own, step, strict=True):
        for a, b in zip(ours.turns, theirs.turns, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def test_an_environment_that_dies_takes_its_own_episode_only(pool: EnvPool, chat: Chat) -> None:
    def script(key: int, turn: int) -> str:
        return ("raise" if key == 1 else "die") if key < 3 and turn == key else f"{key} {turn}"

    played = AsyncRollout(pool, Continuous(chat, script), chat, Limits()).run([Task(s, s) for s in range(5)], PARAMS, "b")
    assert [t.stop_reason for t in played] == [StopReason.ENV_ERROR] * 3 + [StopReason.TERMINATED] * 2
    assert [len(t.turns) for t in played] == [0, 1, 2, 5, 5]


def test_rows_join_and_leave_the_batch_between_two_tokens(make_lm: Callable[[int], CausalLM]) -> None:
    lm = make_lm(0)
    requests = [Request(k, list(range(5, 12 + 3 * k)), 40 + k, frozenset(), 4 + 3 * k) for k in range(5)]
    alone = [TransformersSampler(lm).generate([request], PARAMS)[0] for request in requests]
    sampler, found, waiting = TransformersSampler(lm), dict[int, list[int]](), list(requests)
    most = 0
    while waiting or len(found) < len(requests):
        if waiting:
            sampler.begin([waiting.pop()], PARAMS)
        most = max(most, len(sampler._active))
        found |= {request.key: sample.ids for request, sample in sampler.advance()}
    assert most > 2
    assert [found[k] for k in range(5)] == [sample.ids for sample in alone]


def test_what_cannot_be_asynchronous_is_refused_with_the_remedy(pool: EnvPool, chat: Chat) -> None:
    sampler = Continuous(chat, lambda key, turn: "x")
    with pytest.raises(UserError, match=r"set env\.workers"):
        AsyncRollout(EnvPool("lab/Odds-v0"), sampler, chat, Limits())
    with pytest.raises(UserError, match=r"set engine\.async_rollouts to false"):
        AsyncRollout(pool, ScriptedSampler(chat, lambda key, turn: "x"), chat, Limits())  # type: ignore[arg-type]
