"""The episode loop on a real environment: why episodes end, what stays in the context, and whose tokens are whose."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agentdistill import environment
from agentdistill.chat import Chat
from agentdistill.demonstrations import demonstrate
from agentdistill.environment import TextEnv
from agentdistill.policies.base import SamplingParams
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scripted import ScriptedSampler
from agentdistill.pool import EnvPool
from agentdistill.rollout import Limits, Rollout, Task
from agentdistill.trajectory import StopReason, Trajectory
from agentdistill.view import PLAN_INTRO, windowed, with_plan
from tests.needs import needs

PARAMS = SamplingParams(max_tokens=32)
Maker = Callable[..., Rollout]


def secret(seed: int, size: int = 16) -> int:
    return random.Random(seed).randrange(size)


def wrong(key: int, turn: int) -> str:
    return "no idea"


def context_of(trajectory: Trajectory) -> list[int]:
    """Ids of the last segment."""
    stream = trajectory.stream()
    return stream.ids[stream.segment == stream.segment.max()].tolist()


def test_a_solved_task_is_terminated_and_a_success(chat: Chat, make_rollout: Maker) -> None:
    played = make_rollout(chat, lambda key, turn: str(secret(5)) if turn else "99").run([Task(5, 1)], PARAMS, "b")[0]
    assert played.stop_reason == StopReason.TERMINATED
    assert (played.success, played.reward, len(played.turns)) == (True, 1.0, 2)
    assert (played.task_id, played.seed, played.id) == ("guess-5", 5, "b/0000")
    assert [(t.action, t.observation, t.reward) for t in played.turns] == [("99", "lower", 0), (str(secret(5)), "yes", 1)]
    assert played.turns[-1].terminated
    assert not played.turns[0].terminated


def test_the_environments_own_limit_truncates(chat: Chat, make_rollout: Maker) -> None:
    played = make_rollout(chat, wrong, limit=3).run([Task(5, 1)], PARAMS, "b")[0]
    assert (played.stop_reason, len(played.turns), played.success) == (StopReason.TRUNCATED, 3, False)
    assert played.turns[-1].truncated


def test_the_experiments_limit_ends_after_so_many_turns(chat: Chat, make_rollout: Maker) -> None:
    played = make_rollout(chat, wrong, Limits(max_turns=4)).run([Task(5, 1)], PARAMS, "b")[0]
    assert (played.stop_reason, len(played.turns)) == (StopReason.MAX_TURNS, 4)


def test_the_curriculums_depth_cuts_earlier_than_the_turn_limit(chat: Chat, make_rollout: Maker) -> None:
    played = make_rollout(chat, wrong, Limits(max_turns=4)).run([Task(5, 1, max_turns=2), Task(5, 1)], PARAMS, "b")
    assert [(t.stop_reason, len(t.turns)) for t in played] == [(StopReason.DEPTH, 2), (StopReason.MAX_TURNS, 4)]


def test_a_context_without_room_ends_the_episode(chat: Chat, make_rollout: Maker) -> None:
    limits = Limits(max_context=90)
    played = make_rollout(chat, wrong, limits, chatter=5).run([Task(5, 1)], PARAMS, "b")[0]
    assert played.stop_reason == StopReason.PROMPT_OVERFLOW
    assert (played.windowed, played.success) == (0, False)
    assert played.turns
    assert len(context_of(played)) <= 90
    bridge = chat.bridge([*played.messages, {"role": "assistant", "content": "no idea"}], played.turns[-1].action_ids,
                         played.turns[-1].observation)  # fmt: skip
    assert len(context_of(played)) + len(bridge.ids) > 89  # it really did not fit


def test_an_opening_too_long_for_the_context_gives_no_turns(chat: Chat, make_rollout: Maker) -> None:
    for overflow in ("end", "window"):
        rollout = make_rollout(chat, wrong, Limits(max_context=8, overflow=overflow))
        played = rollout.run([Task(5, 1)], PARAMS, "b")[0]
        assert (played.stop_reason, played.turns, played.windowed) == (StopReason.PROMPT_OVERFLOW, [], 0)


def test_a_window_keeps_the_task_and_the_last_turns_and_starts_a_fresh_segment(chat: Chat, make_rollout: Maker) -> None:
    limits = Limits(max_turns=20, max_context=110, overflow="window", window=2)
    played = make_rollout(chat, lambda key, turn: str(100 + turn), limits, chatter=5).run([Task(5, 1)], PARAMS, "b")[0]
    assert played.stop_reason == StopReason.MAX_TURNS
    fresh = [k for k, turn in enumerate(played.turns) if turn.fresh]
    assert played.windowed == len(fresh) - 1 > 1
    k = fresh[1]
    prompt = chat.tokenizer.decode(played.turns[k].prompt_ids)
    assert prompt.startswith("<|system|>Guess the number.<|end|><|user|>0 to 15<|end|><|assistant|>")
    assert prompt.count("<|assistant|>") == 3  # two turns, and the one to come
    assert f"<|assistant|>{100 + k - 1}<|end|>" in prompt
    assert f"<|assistant|>{100 + k - 3}<|end|>" not in prompt
    stream = played.stream()
    assert stream.segment.max() == played.windowed
    assert max(np.bincount(stream.segment)) <= 110


def test_windowed_messages_keep_their_order() -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "task"}]
    for i in range(3):
        messages += [{"role": "assistant", "content": f"a{i}"}, {"role": "user", "content": f"o{i}"}]
    assert [m["content"] for m in windowed(messages, 1)] == ["s", "task", "a2", "o2"]
    assert [m["content"] for m in windowed(messages[1:], 2)] == ["task", "a1", "o1", "a2", "o2"]
    assert windowed(messages, 9) == messages


@pytest.mark.parametrize("fault", ["raise", "exit", "number", "none", "surrogate", "nan", "info", "calls", "reset", "make"])
def test_an_environment_that_breaks_loses_its_own_episode_only(chat: Chat, make_rollout: Maker, fault: str) -> None:
    lost = [7] if fault != "make" else []
    rollout = make_rollout(chat, wrong, Limits(max_turns=3), fault=fault, fault_at=2, fault_seeds=lost)
    played = rollout.run([Task(5, 1), Task(7, 1), Task(8, 1)], PARAMS, "b")
    broken = [t for t in played if t.stop_reason == StopReason.ENV_ERROR]
    assert [t.seed for t in broken] == (lost or [5, 7, 8])
    assert all("environment 'lab/Guess-v0' failed in" in t.error for t in broken)
    assert all(t.stop_reason == StopReason.MAX_TURNS and len(t.turns) == 3 and not t.error for t in played if t not in broken)
    if fault not in ("reset", "make"):
        assert len(broken[0].turns) == 1  # what happened before stays on record


def test_a_plan_that_raises_loses_its_own_episode_only(chat: Chat, make_rollout: Maker) -> None:
    rollout = make_rollout(chat, wrong, Limits(max_turns=2), privileged=True, fault="plan", fault_seeds=[7])
    played = rollout.run([Task(5, 1), Task(7, 1)], PARAMS, "b")
    assert [t.stop_reason for t in played] == [StopReason.MAX_TURNS, StopReason.ENV_ERROR]
    assert "plan(): OSError: no plan file" in played[1].error


def test_a_slot_whose_environment_broke_is_usable_again(chat: Chat, make_rollout: Maker) -> None:
    rollout = make_rollout(chat, wrong, Limits(max_turns=2), fault="raise", fault_seeds=[7])
    assert rollout.run([Task(7, 1)], PARAMS, "b")[0].stop_reason == StopReason.ENV_ERROR
    assert rollout.run([Task(5, 1)], PARAMS, "c")[0].stop_reason == StopReason.MAX_TURNS


@pytest.mark.parametrize(
    ("words", "success"),
    [([True, False], False), ([False, True], True), ([True, None], True), ([None, None], False), ([True, False, None], False)],
)
def test_the_last_word_on_success_counts(chat: Chat, words: list[bool | None], success: bool) -> None:
    class Words(TextEnv):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
            self.turn = 0
            return "go", {}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            word, self.turn = words[self.turn], self.turn + 1
            return "on", 0.0, self.turn == len(words), False, {} if word is None else {"success": word}

        def expert_action(self) -> str:
            return "on"

    environment.register("lab/Words-v0", Words)
    try:
        pool = EnvPool("lab/Words-v0")
        played = Rollout(pool, ScriptedSampler(chat, wrong), chat, Limits()).run([Task(5, 1)], PARAMS, "b")[0]
        shown = demonstrate(pool, [5], chat, max_turns=9, max_context=512)[0]
    finally:
        environment.unregister("lab/Words-v0")
    assert (played.success, len(played.turns)) == (success, len(words))
    assert (shown.success, len(shown.turns)) == (success, len(words))


def test_an_episode_lost_to_a_fault_is_no_success_whatever_was_said_before(chat: Chat) -> None:
    class Broken(TextEnv):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
            self.turn = 0
            return "go", {}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            self.turn += 1
            if self.turn == 2:
                raise OSError("gone")
            return "on", 0.0, False, False, {"success": True}

    environment.register("lab/Broken-v0", Broken)
    try:
        rollout = Rollout(EnvPool("lab/Broken-v0"), ScriptedSampler(chat, wrong), chat, Limits())
        played = rollout.run([Task(5, 1)], PARAMS, "b")[0]
    finally:
        environment.unregister("lab/Broken-v0")
    assert (played.stop_reason, len(played.turns), played.success) == (StopReason.ENV_ERROR, 1, False)


@pytest.mark.parametrize("overflow", ["end", "window"])
@pytest.mark.parametrize("where", ["system", "chatter"])
def test_megabytes_from_an_environment_overflow_without_being_encoded(
    chat: Chat, make_rollout: Maker, monkeypatch: pytest.MonkeyPatch, where: str, overflow: str
) -> None:
    encoded: list[int] = []
    encode = Chat.encode
    monkeypatch.setattr(Chat, "encode", lambda self, text: encoded.append(len(text)) or encode(self, text))
    options = {"system": "x" * 3_000_000} if where == "system" else {"chatter": 3_000_000}
    rollout = make_rollout(chat, wrong, Limits(overflow=overflow), **options)
    played = rollout.run([Task(5, 1)], PARAMS, "b")[0]
    assert played.stop_reason == StopReason.PROMPT_OVERFLOW
    assert len(played.turns) == (where == "chatter")  # the turn that was answered with megabytes is kept
    assert played.windowed == 0
    assert max(encoded, default=0) < 1000
    shown = demonstrate(rollout.pool, [3], chat, max_turns=9, max_context=512)[0]
    assert (shown.stop_reason, len(shown.turns)) == (StopReason.PROMPT_OVERFLOW, len(played.turns))
    assert max(encoded, default=0) < 1000


def test_replayed_turns_are_the_experts_and_carry_no_loss(chat: Chat, make_rollout: Maker) -> None:
    rollout = make_rollout(chat, wrong, Limits(max_turns=4))
    played = rollout.run([Task(5, 1, prefix=("99", "98"))], PARAMS, "b")[0]
    assert [t.author for t in played.turns] == ["expert", "expert", "student", "student"]
    assert [t.finish for t in played.turns] == ["replayed", "replayed", "stop", "stop"]
    assert played.prefix_turns == 2
    stream = played.stream()
    assert not stream.is_action[stream.turn < 2].any()
    assert np.isnan(stream.logprobs[stream.turn < 2]).all()
    assert stream.is_action.sum() == played.n_action_tokens == 2 * len(chat.message_ids("no idea"))


def test_the_replayed_prefix_is_in_the_context_that_the_student_sees(chat: Chat, make_rollout: Maker) -> None:
    seen: list[list[int]] = []
    rollout = make_rollout(chat, wrong, Limits(max_turns=3))
    generate = rollout.sampler.generate

    def watch(requests, params):
        seen.extend([list(r.context) for r in requests])
        return generate(requests, params)

    rollout.sampler.generate = watch
    rollout.run([Task(5, 1, prefix=("99", "0"))], PARAMS, "b")
    first = "lower" if secret(5) < 99 else "higher"
    assert chat.tokenizer.decode(seen[0]) == (
        "<|system|>Guess the number.<|end|><|user|>0 to 15<|end|><|assistant|>99<|end|>"
        f"<|user|>{first}<|end|><|assistant|>0<|end|><|user|>higher<|end|><|assistant|>"
    )


def test_a_prefix_that_breaks_the_environment_counts_only_what_was_played(chat: Chat, make_rollout: Maker) -> None:
    rollout = make_rollout(chat, wrong, fault="raise", fault_at=2)
    played = rollout.run([Task(5, 1, prefix=("99", "98", "97"))], PARAMS, "b")[0]
    assert (played.stop_reason, played.prefix_turns, len(played.turns)) == (StopReason.ENV_ERROR, 1, 1)


def test_groups_seeds_and_versions_are_recorded_in_the_order_of_the_tasks(chat: Chat, make_rollout: Maker) -> None:
    rollout = make_rollout(chat, wrong, Limits(max_turns=1))
    rollout.sampler.version = 3
    played = rollout.run([Task(s, 0, group=g) for s, g in ((9, 0), (9, 0), (4, 1))], PARAMS, "iter-1")
    assert [(t.id, t.seed, t.group, t.policy_version) for t in played] == [
        ("iter-1/0000", 9, 0, 3), ("iter-1/0001", 9, 0, 3), ("iter-1/0002", 4, 1, 3)
    ]  # fmt: skip
    assert {t.policy for t in played} == {"scripted"}


def test_messages_never_outgrow_the_context(chat: Chat, make_rollout: Maker) -> None:
    rollout = make_rollout(chat, lambda key, turn: "higher " * 40, Limits(max_turns=9, max_context=70))
    played = rollout.run([Task(5, 1)], SamplingParams(max_tokens=1000), "b")[0]
    assert len(context_of(played)) == 70
    assert played.turns[-1].finish == "length"
    assert played.stop_reason == StopReason.PROMPT_OVERFLOW


def test_a_message_cut_by_the_token_limit_is_closed_in_the_context(chat: Chat, make_rollout: Maker) -> None:
    rollout = make_rollout(chat, wrong, Limits(max_turns=2))
    played = rollout.run([Task(5, 1)], SamplingParams(max_tokens=2), "b")[0]
    first = played.turns[0]
    assert first.finish == "length"
    text = chat.tokenizer.decode(context_of(played))
    assert f"<|assistant|>{first.action}<|end|><|user|>higher<|end|><|assistant|>" in text


def test_only_a_teacher_that_may_see_it_gets_the_plan_and_only_in_fresh_prompts(chat: Chat, make_rollout: Maker) -> None:
    limits = Limits(max_turns=8, max_context=110, overflow="window", window=1)
    rollout = make_rollout(chat, lambda key, turn: str(100 + turn), limits, privileged=True, chatter=5)
    played = rollout.run([Task(5, 1)], PARAMS, "b")[0]
    assert played.windowed >= 1
    for turn in played.turns:
        assert (turn.teacher_prompt_ids is not None) == turn.fresh
        own = chat.tokenizer.decode(turn.prompt_ids)
        assert f"say {secret(5)}" not in own
        if turn.fresh:
            theirs = chat.tokenizer.decode(turn.teacher_prompt_ids)
            assert theirs == own.replace("0 to 15", f"0 to 15\n\n{PLAN_INTRO}\nsay {secret(5)}", 1)
    plain = make_rollout(chat, wrong, limits).run([Task(5, 1)], PARAMS, "b")[0]
    assert all(turn.teacher_prompt_ids is None for turn in plain.turns)


def test_an_environment_without_a_plan_gives_no_teacher_prompt(chat: Chat) -> None:
    rollout = Rollout(EnvPool("lab/Mute-v0"), ScriptedSampler(chat, wrong), chat, Limits(), privileged=True)
    played = rollout.run([Task(5, 1)], PARAMS, "b")[0]
    assert played.turns[0].teacher_prompt_ids is None
    assert (played.success, played.task_id) == (True, "5")  # no word of success: a rewarded end counts
    assert [m["role"] for m in played.messages] == ["user"]  # a system prompt of None is none


def test_the_plan_goes_under_the_task_and_leaves_the_messages_alone() -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "task"}, {"role": "user", "content": "o"}]
    out = with_plan(messages, "p")
    assert [m["content"] for m in out] == ["s", f"task\n\n{PLAN_INTRO}\np", "o"]
    assert messages[1]["content"] == "task"


def test_rewriting_templates_make_one_segment_for_each_thought(thinking: Chat, make_rollout: Maker) -> None:
    rollout = make_rollout(thinking, lambda key, turn: f"<think>{turn}</think>\n\n99", Limits(max_turns=3))
    played = rollout.run([Task(5, 1)], SamplingParams(max_tokens=60), "b")[0]
    assert [t.fresh for t in played.turns] == [True, True, True]
    assert played.stream().segment.max() == 2
    assert played.windowed == 0
    assert "<think>" not in thinking.tokenizer.decode(played.turns[2].prompt_ids)


def sampled_ids(lm: CausalLM, tasks: list[Task]) -> list[list[list[int]]]:
    chat = Chat(lm.tokenizer)
    rollout = Rollout(EnvPool("lab/Guess-v0"), TransformersSampler(lm), chat, Limits(max_turns=3))
    played = rollout.run(tasks, SamplingParams(max_tokens=6), "b")
    return [[turn.action_ids for turn in t.turns] for t in played]


def test_an_episode_is_a_function_of_its_sample_seed(make_lm: Callable[[int], CausalLM]) -> None:
    lm = make_lm(0)
    first = sampled_ids(lm, [Task(5, 11), Task(5, 12), Task(6, 13)])
    assert sampled_ids(lm, [Task(6, 13), Task(5, 11), Task(5, 12)]) == [first[2], first[0], first[1]]
    assert first[0] != first[1]
    assert first[0][0] != first[0][1]  # each turn draws anew


def test_log_probabilities_come_with_every_sampled_id(make_lm: Callable[[int], CausalLM]) -> None:
    lm = make_lm(0)
    chat = Chat(lm.tokenizer)
    rollout = Rollout(EnvPool("lab/Guess-v0"), TransformersSampler(lm), chat, Limits(max_turns=2))
    for turn in rollout.run([Task(5, 11)], SamplingParams(max_tokens=6, temperature=0.5), "b")[0].turns:
        assert len(turn.action_ids) == len(turn.logprobs) == len(turn.logprobs_t1)
        assert turn.logprobs != turn.logprobs_t1
        assert turn.action == chat.decode(turn.action_ids)


def test_the_clock_knows_both_phases(chat: Chat, make_rollout: Maker) -> None:
    rollout = make_rollout(chat, wrong, Limits(max_turns=2))
    rollout.run([Task(5, 1)], PARAMS, "b")
    assert rollout.clock.generate > 0
    assert rollout.clock.environment > 0


def test_textworlds_expert_as_a_script_wins(chat: Chat) -> None:
    needs("textworld")
    pool = EnvPool("agentdistill/TextWorld-v0", {"challenge": "coin_collector", "level": 3})
    expert = pool.expert_actions(1000, 20)
    assert expert
    rollout = Rollout(pool, ScriptedSampler(chat, lambda key, turn: expert[turn]), chat, Limits())
    played = rollout.run([Task(1000, 1), Task(1000, 1, prefix=expert[:1])], PARAMS, "b")
    assert (played[0].success, played[0].stop_reason) == (True, StopReason.TERMINATED)
    assert [t.action for t in played[0].turns] == expert
    assert played[1].turns[0].observation == played[0].turns[0].observation
    assert played[1].messages == played[0].messages


def test_a_prompt_may_leave_room_for_a_single_token(chat: Chat, make_rollout: Maker) -> None:
    size = len(chat.start(make_rollout(chat, wrong).run([Task(5, 1)], PARAMS, "b")[0].messages))
    for limit, reason, sampled in ((size, StopReason.PROMPT_OVERFLOW, 0), (size + 1, StopReason.MAX_TURNS, 1)):
        rollout = make_rollout(chat, wrong, Limits(max_turns=1, max_context=limit))
        played = rollout.run([Task(5, 1)], PARAMS, "b")[0]
        assert (played.stop_reason, played.n_action_tokens) == (reason, sampled)


def test_an_episode_that_ends_gives_its_cache_up_at_once(make_lm: Callable[[int], CausalLM]) -> None:
    lm = make_lm(0)
    sampler = TransformersSampler(lm)
    rollout = Rollout(EnvPool("lab/Guess-v0"), sampler, Chat(lm.tokenizer), Limits(max_turns=3))
    held: list[set[int]] = []
    generate = sampler.generate

    def watch(requests, params):
        held.append({row.key for row in sampler._rows})
        return generate(requests, params)

    sampler.generate = watch
    rollout.run([Task(5, 1), Task(5, 2, max_turns=1), Task(5, 3)], SamplingParams(max_tokens=4), "b")
    assert held == [set(), {0, 2}, {0, 2}]
    assert sampler._rows == []
