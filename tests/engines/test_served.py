"""Sampling, scoring and weight sync over a connection, held against the model in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from agentdistill.chat import Chat
from agentdistill.engines.sampler import ServedSampler
from agentdistill.engines.scorer import ServedScorer
from agentdistill.engines.weights import WeightSync, require_same_model
from agentdistill.engines.wire import Ask, Said
from agentdistill.errors import UserError
from agentdistill.modules import import_module
from agentdistill.policies.base import Request, SamplingParams, ScoreRequest
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.policies.served import Served
from agentdistill.pool import EnvPool, Workers
from agentdistill.rollout import Limits, Rollout, Task
from agentdistill.rollout_async import AsyncRollout
from agentdistill.training.optim import adamw, apply_step
from tests.conftest import spread_model
from tests.engines.wired import Beside

REQUESTS = [Request(0, [5, 6, 7, 8], 1, frozenset()), Request(1, [9, 10], 2, frozenset())]
GREEDY = SamplingParams(temperature=0, max_tokens=5)


@pytest.fixture
def lm(tokenizer: PreTrainedTokenizerFast) -> CausalLM:
    return spread_model(tokenizer, 1)


@pytest.fixture
def beside(lm: CausalLM, tmp_path: Path) -> Beside:
    return Beside(lm, tmp_path / "copy")


def test_every_optimizer_step_is_followed_and_nothing_is_sent_twice(lm: CausalLM, beside: Beside, tmp_path: Path) -> None:
    sync = WeightSync(lm, torch.float32, str(tmp_path / "exchange"))
    sync.to(beside)
    sampler, optimizer = ServedSampler(lm, beside, sync=sync), adamw(lm.model, 0.05, (0.9, 0.99), 0.0)
    before: list[int] = []
    for step in range(3):
        mine, theirs = TransformersSampler(lm).generate(REQUESTS, GREEDY), sampler.generate(REQUESTS, GREEDY)
        assert [each.ids for each in theirs] == [each.ids for each in mine]
        for a, b in zip(mine, theirs, strict=True):
            assert b.logprobs_t1 == pytest.approx(a.logprobs_t1, abs=1e-5)
        sampler.generate(REQUESTS, GREEDY)
        assert (beside.loaded, sync.pushed) == (step + 1, step + 1)
        assert mine[0].ids != before
        before = mine[0].ids
        lm.model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits.logsumexp(-1).sum().backward()
        apply_step(optimizer, 0.05, 1e9, "here")
    assert not any((tmp_path / "exchange").rglob("*.safetensors"))
    sync.close()
    assert not any((tmp_path / "exchange").iterdir())


@pytest.mark.parametrize("named", ["shared", "~/shared"])
def test_the_folder_for_weights_is_named_in_full_and_others_may_read_it(
    named: str, lm: CausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server runs in another folder, perhaps as another user."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    sync = WeightSync(lm, torch.float32, named)
    assert sync.folder.parent == tmp_path.resolve() / "shared"
    assert sync.folder.stat().st_mode & 0o777 == 0o755
    sync.close()
    sync = WeightSync(lm, torch.float32, named, private=True)
    assert sync.folder.stat().st_mode & 0o777 == 0o700
    sync.close()
    sync = WeightSync(lm, torch.float32)
    assert sync.folder.stat().st_mode & 0o777 == 0o700
    sync.close()


def test_scores_are_those_of_the_model_in_this_process_and_asked_for_in_portions(lm: CausalLM, beside: Beside) -> None:
    requests = [ScoreRequest([4 + i, 5, 6, 7, 8, 9], [2, 3, 5]) for i in range(5)]
    scorer, plain = ServedScorer(lm, beside, budget=13, top=3), TransformersScorer(lm)
    for ours, theirs in zip(plain.score(requests), scorer.score(requests), strict=True):
        torch.testing.assert_close(theirs.logprobs, ours.logprobs, atol=1e-5, rtol=0)
        assert ours.distribution is not None
        assert theirs.distribution is not None
        whole, known = ours.distribution.logprobs(slice(None)), theirs.distribution.logprobs(slice(None))
        assert known.shape == whole.shape
        top = whole.topk(3)
        torch.testing.assert_close(known.gather(1, top.indices), top.values, atol=1e-5, rtol=0)
        torch.testing.assert_close(known.exp().sum(-1), torch.ones(3))
    assert beside.asked == [12, 12, 6]
    assert scorer.capabilities == {"teacher", "topk"}
    assert ServedScorer(lm, beside, budget=13).capabilities == {"teacher"}


@pytest.mark.parametrize(("temperature", "budget"), [(0.5, 100), (2.0, 9)])  # both in a pass, and each in one
def test_log_probs_at_another_temperature_are_computed_here(
    lm: CausalLM, beside: Beside, temperature: float, budget: int
) -> None:
    sampler = ServedSampler(lm, beside, budget=budget)
    samples = sampler.generate(REQUESTS, SamplingParams(temperature=temperature, max_tokens=4))
    for request, sample in zip(REQUESTS, samples, strict=True):
        ids = [*request.context, *sample.ids]
        logits = lm.model(input_ids=torch.tensor([ids])).logits[0, len(request.context) - 1 : -1]
        wanted = torch.log_softmax(logits / temperature, -1).gather(1, torch.tensor(sample.ids)[:, None])[:, 0]
        assert sample.logprobs == pytest.approx(wanted.tolist(), abs=1e-5)
        assert sample.logprobs_t1 != pytest.approx(sample.logprobs, abs=1e-2)
    elsewhere = Served(lm.tokenizer, "big", 512, lm.vocab_size)
    with pytest.raises(UserError, match="tells no log-probs at temperature"):
        ServedSampler(elsewhere, beside).generate(REQUESTS, SamplingParams(temperature=temperature))


def test_a_message_ends_with_its_stop_token_or_where_there_is_no_room(lm: CausalLM, beside: Beside) -> None:
    sampler = ServedSampler(lm, beside)
    [free] = sampler.generate(REQUESTS[:1], GREEDY)
    assert (len(free.ids), free.finish) == (5, "length")
    [cut] = sampler.generate([Request(0, REQUESTS[0].context, 1, frozenset({free.ids[2]}))], GREEDY)
    first = free.ids.index(free.ids[2])
    assert (cut.ids, cut.finish) == (free.ids[: first + 1], "stop")
    beside.context = 6
    assert len(sampler.generate(REQUESTS[:1], GREEDY)[0].ids) == 2
    with pytest.raises(UserError, match="leaves no room in the 6"):
        sampler.generate([Request(0, [1] * 6, 1, frozenset())], GREEDY)
    with pytest.raises(UserError, match="6 tokens is more than the 5"):
        ServedScorer(lm, beside, budget=100).score([ScoreRequest([1] * 6, [1])])


class Faulty(Beside):
    """Gives rows of a prompt that are not as asked."""

    fault: str = ""

    def _scored(self, ask: Ask) -> Said:
        rows: list[Mapping[int, float]] = list(super()._scored(ask).prompt)
        changed = {
            "short": rows[:-1],
            "other": [{999: -1.0} for _ in rows],
            "nan": [dict.fromkeys(row, float("nan")) for row in rows],
        }
        return Said([], [], changed[self.fault])


@pytest.mark.parametrize(
    ("fault", "said"), [("short", "of 3 positions for a sequence of 4"), ("other", "no finite log-prob"), ("nan", "no finite")]
)
def test_scores_that_are_not_of_the_sequence_are_refused(lm: CausalLM, tmp_path: Path, fault: str, said: str) -> None:
    faulty = Faulty(lm, tmp_path / "copy")
    faulty.fault = fault
    with pytest.raises(UserError, match=said):
        ServedScorer(lm, faulty, budget=100).score([ScoreRequest([1, 2, 3, 4], [1, 2])])


def test_a_served_model_that_is_another_one_is_refused(lm: CausalLM, beside: Beside) -> None:
    require_same_model(lm, beside)
    with torch.no_grad():
        beside.lm.head.weight.copy_(beside.lm.head.weight.roll(1, 0) * 3)
    with pytest.raises(UserError, match="start it with a model of the same architecture"):
        require_same_model(lm, beside)


@pytest.fixture(scope="module")
def pool() -> Iterator[EnvPool]:
    import_module(str(Path(__file__).parents[1] / "games.py"))
    opened = EnvPool("lab/Odds-v0", workers=Workers(3))
    yield opened
    opened.close()


def test_episodes_at_their_own_pace_are_those_in_step(lm: CausalLM, beside: Beside, pool: EnvPool, tmp_path: Path) -> None:
    sync = WeightSync(lm, torch.float32, str(tmp_path / "exchange"))
    sync.to(beside)
    chat, sampler = Chat(lm.tokenizer), ServedSampler(lm, beside, sync=sync)
    tasks, limits = [Task(seed, seed, group=seed, max_turns=1 + seed % 4) for seed in range(7)], Limits(max_context=120)
    step = Rollout(pool, sampler, chat, limits).run(tasks, GREEDY, "b")
    beside.asked.clear()
    own = AsyncRollout(pool, sampler, chat, limits).run(tasks, GREEDY, "b")
    assert len(beside.asked) == sum(len(t.turns) for t in own) > 14  # each message was asked for by itself
    for ours, theirs in zip(own, step, strict=True):
        assert (ours.id, ours.task_id, ours.stop_reason) == (theirs.id, theirs.task_id, theirs.stop_reason)
        assert [turn.action_ids for turn in ours.turns] == [turn.action_ids for turn in theirs.turns]
        assert [turn.observation for turn in ours.turns] == [turn.observation for turn in theirs.turns]
    sync.close()


def test_weights_are_sent_before_the_first_message_and_not_between(lm: CausalLM, beside: Beside, tmp_path: Path) -> None:
    sync = WeightSync(lm, torch.float32, str(tmp_path / "exchange"))
    sync.to(beside)
    sampler = ServedSampler(lm, beside, sync=sync)
    for pushed in (1, 2):
        sampler.begin(REQUESTS[:1], GREEDY)
        sampler.begin(REQUESTS[1:], GREEDY)
        found: dict[int, list[int]] = {}
        while len(found) < len(REQUESTS):
            found |= {request.key: sample.ids for request, sample in sampler.advance()}
        assert [found[k] for k in range(2)] == [each.ids for each in TransformersSampler(lm).generate(REQUESTS, GREEDY)]
        assert sync.pushed == pushed
        with torch.no_grad():
            lm.head.weight.mul_(-1)
    sync.close()


def test_a_refusal_ends_the_rollout_and_the_next_one_begins_anew(lm: CausalLM, beside: Beside, monkeypatch: Any) -> None:
    sampler = ServedSampler(lm, beside)
    with monkeypatch.context() as patch:

        def refuse(asks: Sequence[Ask]) -> list[Said]:
            raise UserError("no room")

        patch.setattr(beside, "ask", refuse)
        sampler.begin(REQUESTS, GREEDY)
        wait(sampler._waiting)
        with pytest.raises(UserError, match="no room"):
            sampler.advance()
    sampler.release()
    assert sampler.advance() == []
    assert len(sampler.generate(REQUESTS, GREEDY)) == 2
