"""Environments in worker processes: the answers of one process, whatever dies."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentdistill.chat import Chat
from agentdistill.demonstrations import demonstrate
from agentdistill.errors import UserError
from agentdistill.modules import import_module
from agentdistill.policies.base import SamplingParams
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scripted import ScriptedSampler
from agentdistill.pool import EnvironmentFault, EnvPool, Play, Question, Workers
from agentdistill.pool_workers import EnvironmentTimeout
from agentdistill.rollout import Limits, Rollout, Task
from agentdistill.trajectory import StopReason, Trajectory

GAMES = Path(__file__).with_name("games.py")
PARAMS = SamplingParams(max_tokens=32)
Open = Callable[..., EnvPool]


@pytest.fixture(scope="module")
def open_pool() -> Iterator[Open]:
    """A pool of `lab/Odds-v0`: one a number of workers, which the tests share as they left it, or a new one with options."""
    import_module(str(GAMES))
    pools: dict[Any, EnvPool] = {}

    def opened(count: int = 2, limits: dict[str, Any] | None = None, **options: Any) -> EnvPool:
        key = (count, len(pools) if limits or options else None)
        if key not in pools:
            pools[key] = EnvPool("lab/Odds-v0", options, workers=Workers(count, **(limits or {})) if count else None)
        return pools[key]

    yield opened
    for pool in pools.values():
        pool.close()


def pids(pool: EnvPool) -> list[int]:
    assert pool._away is not None
    return [process.pid for process in pool._away.processes]


def resident(pool: EnvPool) -> float:
    """MiB of the largest worker."""
    assert pool._away is not None
    return max(process.memory for process in pool._away.processes) / (1 << 20)


def measured(pool: EnvPool) -> list[tuple[int, float]]:
    """The episodes that each worker alive was asked for, and the MiB that it uses."""
    assert pool._away is not None
    found = [(each.episodes, each.memory / (1 << 20)) for each in pool._away.processes if each.ready]
    return [(episodes, memory) for episodes, memory in found if memory]


def timeless(played: list[Trajectory]) -> list[dict[str, Any]]:
    """Everything of the trajectories but how long they took."""
    out = [dataclasses.asdict(t) for t in played]
    for trajectory in out:
        trajectory.pop("env_options")
        for turn in trajectory["turns"]:
            turn["env_seconds"] = turn["sample_seconds"] = 0.0
    return out


def play(pool: EnvPool, chat: Chat, tasks: list[Task], batch: str = "b", **script: str) -> list[Trajectory]:
    """Play tasks with scripted messages: `s<seed>=message` at every turn of a task's episode."""
    said = {k: script.get(f"s{task.seed}", "") for k, task in enumerate(tasks)}
    sampler = ScriptedSampler(chat, lambda key, turn: said[key] or f"{key} {turn}")
    return Rollout(pool, sampler, chat, Limits()).run(tasks, PARAMS, batch)


def ask(pool: EnvPool, call: str, *arguments: Any, slots: int = 4) -> list[Any]:
    return pool.ask([Question(slot, call, arguments or (slot,)) for slot in range(slots)])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_trajectories_are_the_same_with_any_number_of_workers(
    open_pool: Open, make_lm: Callable[[int], CausalLM], count: int
) -> None:
    lm = make_lm(0)
    tasks = [Task(5, 1), Task(5, 2), Task(6, 3, prefix=("a", "b")), Task(7, 4, max_turns=2), Task(8, 5)]

    def everything(pool: EnvPool) -> list[Any]:
        chat = Chat(lm.tokenizer)
        rollout = Rollout(pool, TransformersSampler(lm), chat, Limits(max_context=300), privileged=True)
        first = rollout.run(tasks, PARAMS, "b")
        shown = demonstrate(pool, [3, 4], chat, max_turns=4, max_context=400, noise=0.5)
        return [
            timeless(first + shown + rollout.run(tasks[1:3], PARAMS, "c")),
            pool.expert_actions(2, 9),
            pool.expert_actions(1, 9),
            pool.expert_episodes(range(8), 9),
        ]

    assert everything(open_pool(count)) == everything(open_pool(0))


def test_chaos_costs_no_episode_and_changes_none(open_pool: Open, chat: Chat) -> None:
    """200 episodes that leak 2 MiB each, while workers are killed at random moments, also while they start."""
    rng, killed, held = random.Random(0), list[int](), list[tuple[int, float]]()

    def kill() -> None:
        if victims := pids(pool):
            killed.append(rng.choice(victims))
            os.kill(killed[-1], signal.SIGKILL)

    def disturbed(key: int, turn: int) -> str:
        if key % 10 == 0:
            held.extend(measured(pool))
            assert pool._away is not None
            assert len(pool._away._past) <= 20
        if rng.random() < 0.01:
            timers.append(threading.Timer(rng.uniform(0, 0.04), kill))
            timers[-1].start()
        return f"{key} {turn}"

    def run(pool: EnvPool, script: Callable[[int, int], str]) -> list[Trajectory]:
        rollout = Rollout(pool, ScriptedSampler(chat, script), chat, Limits())
        return [t for b in range(10) for t in rollout.run([Task(20 * b + k, 0) for k in range(20)], PARAMS, f"b{b}")]

    timers: list[threading.Timer] = []
    pool = open_pool(2, {"recycle": 20}, pause=0.003, leak=2)
    played = run(pool, disturbed)
    for timer in timers:
        timer.join()
    assert len(set(killed)) > 4
    assert [t.seed for t in played] == list(range(200))
    assert len({t.id for t in played}) == 200
    assert timeless(played) == timeless(run(open_pool(0), lambda key, turn: f"{key} {turn}"))
    # A process has at most 19 episodes before a batch, and 11 of a batch's 20, some of them again for one that was killed.
    assert max(memory for _, memory in held) < 60 + 2 * (19 + 2 * 11)
    assert min(memory - 2 * episodes for episodes, memory in held) > 20  # so a worker's hundred without an end would be 220
    assert pool._away is not None
    assert pool._away._past == {}


def test_memory_is_bounded_by_new_processes(open_pool: Open) -> None:
    pool, leaking = open_pool(1, {"memory": 85}, leak=4), open_pool(1, leak=4)
    peak, seen = 0.0, set[int]()
    for seed in range(30):
        for each in (pool, leaking):
            each.reset(0, seed)
        peak = max(peak, resident(pool))
        seen |= set(pids(pool))
    assert resident(leaking) > 150
    assert peak < 110
    assert len(seen) > 2
    assert len(pids(pool)) == 1


def test_memory_is_bounded_also_within_one_long_play(open_pool: Open) -> None:
    pool = open_pool(2, {"recycle": 8}, leak=6)
    seen, peak = set[int](), list[float]()

    def episode(seed: int) -> Play[str]:
        yield "reset", (seed,)
        answer = yield "step", ("a",)
        seen.update(pids(pool))
        peak.append(resident(pool))
        return str(answer.observation)

    def all_of(each: EnvPool) -> list[str]:
        return each.play(episode(seed) for seed in range(40))

    played = all_of(pool)
    assert len(seen) > 4
    assert pool._away is not None
    assert pool._away._past == {}
    assert max(peak) < 135  # without an end, 120 MiB more than the 45 of an empty one
    assert played == all_of(open_pool(1))


def test_a_workers_children_count_as_its_memory(open_pool: Open) -> None:
    pool, small = open_pool(1, {"memory": 120}, child=100), open_pool(1, {"memory": 120})
    for each, processes in ((pool, 3), (small, 1)):
        seen = set[int]()
        for seed in range(3):
            each.reset(0, seed)
            seen |= set(pids(each))
        assert len(seen) == processes


def test_episodes_that_are_played_side_by_side_do_not_wait_for_each_other(open_pool: Open, tmp_path: Path) -> None:
    file = tmp_path / "through"

    def waits(seed: int) -> Play[str]:
        yield "reset", (seed,)
        return str((yield "step", (f"wait for {file}",)).observation)

    def goes_on(seed: int) -> Play[str]:
        yield "reset", (seed,)
        for turn in range(4):
            yield "step", (f"{turn}",)
        file.touch()
        return "through"

    found = open_pool(2).play(waits(seed) if seed < 4 else goes_on(seed) for seed in range(8))  # four a worker
    assert found == ["True"] * 4 + ["through"] * 4


def test_the_first_episode_that_fails_is_the_one_told_of_and_none_is_begun_after_it(open_pool: Open) -> None:
    for count in (0, 2):
        begun, pool = list[int](), open_pool(count)

        def episode(seed: int, begun: list[int] = begun) -> Play[None]:
            begun.append(seed)
            yield "reset", (seed,)
            for turn in range(5 - seed):  # its episodes have five turns
                yield "step", (f"{turn}",)
            if seed in (2, 5):
                raise UserError(f"episode {seed} is wrong")

        before = pids(pool) if count else []
        with pytest.raises(UserError, match=r"^episode 2 is wrong$"):
            pool.play(episode(seed) for seed in range(30))
        assert len(begun) < 30
        assert (pids(pool) if count else []) == before  # an episode's own mistake costs no process


def test_an_expert_that_fails_is_told_of_for_its_task_alone(open_pool: Open) -> None:
    pool = open_pool(2, expert_fails=(1, 3))
    found = pool.expert_episodes([0, 1, 2, 1], 9)
    said = "environment 'lab/Odds-v0' failed in expert_action(): ValueError: lost"
    assert [str(each) for each in found if isinstance(each, EnvironmentFault)] == [said] * 2
    assert [found[0], found[2]] == open_pool(0).expert_episodes([0, 2], 9)
    assert pool.expert_episodes([1], 9)[0] is found[1]  # remembered, as the others are
    with pytest.raises(EnvironmentFault, match="lost"):
        pool.expert_actions(3, 9)


def test_an_episode_whose_worker_is_killed_goes_on_in_another_and_others_do_not_notice(open_pool: Open) -> None:
    pool, quiet = open_pool(2), open_pool(0)
    for each in (pool, quiet):
        ask(each, "reset")
        ask(each, "step", "a")
    before = pids(pool)
    os.kill(before[0], signal.SIGKILL)
    for _ in range(2):
        assert ask(pool, "step", "b") == ask(quiet, "step", "b")
        assert pool.expert_action(1) == quiet.expert_action(1)
    os.kill(pids(pool)[0], signal.SIGKILL)
    assert [a.observation for a in ask(pool, "step", "c")] == [a.observation for a in ask(quiet, "step", "c")]
    after = pids(pool)
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_a_crash_that_does_not_come_again_leaves_no_trace(open_pool: Open, chat: Chat, tmp_path: Path) -> None:
    tasks = [Task(seed, 0) for seed in range(6)]
    played = play(open_pool(2, once=str(tmp_path / "crashed")), chat, tasks)
    assert (tmp_path / "crashed").exists()
    assert timeless(played) == timeless(play(open_pool(0), chat, tasks))


def test_an_episode_that_always_kills_its_worker_is_lost_alone(open_pool: Open, chat: Chat) -> None:
    tasks = [Task(seed, 0) for seed in range(6)]
    played = play(open_pool(2, dies=(1,)), chat, tasks)
    assert [t.stop_reason == StopReason.ENV_ERROR for t in played] == [False, True, False, False, False, False]
    assert (len(played[1].turns), played[1].success) == (2, False)
    assert played[1].error == (
        "environment 'lab/Odds-v0' failed in step('1 2'): its worker process died 3 times (it ended by signal 11)"
    )
    del played[1], tasks[1]
    expected = play(open_pool(0), chat, [Task(seed, 0) for seed in range(6)])
    del expected[1]
    assert timeless(played) == timeless(expected)


def test_a_call_that_hangs_is_a_timeout_of_its_episode_alone(open_pool: Open, chat: Chat) -> None:
    tasks = [Task(seed, 0) for seed in range(4)]
    pool = open_pool(2, {"timeout": 0.5})
    played = play(pool, chat, tasks, s1="hang")
    expected = play(open_pool(0), chat, tasks, s1="")
    assert played[1].stop_reason == StopReason.ENV_ERROR
    assert played[1].error == (
        "environment 'lab/Odds-v0' timed out in step('hang'): no answer within 0.5 s (env.timeout), 2 times; "
        "its worker process was killed"
    )
    assert (played[1].success, played[1].turns) == (False, [])
    assert timeless([t for t in played if t.seed != 1]) == timeless([t for t in expected if t.seed != 1])
    pool.reset(1, 9)
    with pytest.raises(EnvironmentTimeout):
        pool.step(1, "hang")
    assert pool.reset(1, 9) == open_pool(0).reset(1, 9)


def test_a_worker_that_stops_is_replaced_and_its_episodes_do_not_notice(open_pool: Open) -> None:
    pool, quiet = open_pool(1, {"timeout": 0.5}), open_pool(0)
    for each in (pool, quiet):
        ask(each, "reset")
    for message in "abc":
        (pid,) = pids(pool)
        os.kill(pid, signal.SIGSTOP)
        assert ask(pool, "step", message) == ask(quiet, "step", message)
        assert not Path(f"/proc/{pid}").exists()


def test_a_fault_is_the_same_sentence_and_ends_the_slots_questions_only(open_pool: Open) -> None:
    def faults(pool: EnvPool) -> list[Any]:
        questions = [
            Question(s, c, a) for s in (0, 1) for c, a in (("reset", (s,)), ("step", ("raise" if s else "a",)), ("plan", ()))
        ]
        return [str(a) if isinstance(a, EnvironmentFault) else a for a in pool.ask(questions)]

    found = faults(open_pool(1))
    assert found == faults(open_pool(0))
    assert found[4] == found[5] == "environment 'lab/Odds-v0' failed in step('raise'): ValueError: broken pipe"
    assert found[2] == "wait, 0"


def test_an_environment_that_answers_otherwise_after_a_crash_is_refused_by_name(open_pool: Open) -> None:
    pool = open_pool(1)
    pool.reset(0, 1)
    pool.step(0, "other")
    os.kill(pids(pool)[0], signal.SIGKILL)
    with pytest.raises(EnvironmentFault, match=r"'lab/Odds-v0' is not deterministic: step\('other'\) had another answer when"):
        pool.step(0, "a")


def test_episodes_in_play_outlive_the_recycling_of_their_worker(open_pool: Open) -> None:
    pool, quiet = open_pool(1, {"recycle": 4}), open_pool(0)
    for each in (pool, quiet):
        ask(each, "reset")
        ask(each, "step", "a")
    (before,) = pids(pool)
    for each in (pool, quiet):
        each.reset(9, 9)
    assert pids(pool) != [before]
    assert ask(pool, "step", "b") == ask(quiet, "step", "b")


def test_slots_move_between_workers_with_batches_of_any_size(open_pool: Open, chat: Chat) -> None:
    pool, quiet = open_pool(3), open_pool(0)
    for size in (7, 2, 12, 1, 5):
        tasks = [Task(100 * size + k, 0) for k in range(size)]
        assert timeless(play(pool, chat, tasks)) == timeless(play(quiet, chat, tasks))
    where = ask(pool, "reset", 1, slots=6) and ask(pool, "step", "pid", slots=6)
    assert len({answer.observation for answer in where}) == 3
    assert where[0] == where[1]  # neighbours, which may share a task, share a process


def test_megabytes_cross_both_ways(open_pool: Open) -> None:
    pool = open_pool(2)
    ask(pool, "reset")
    assert [len(answer.observation) for answer in ask(pool, "step", "big")] == [8_000_000] * 4
    quiet = open_pool(0)
    ask(quiet, "reset")
    ask(quiet, "step", "big")
    assert ask(pool, "step", "y" * 3_000_000) == ask(quiet, "step", "y" * 3_000_000)


def test_what_environments_print_goes_to_stderr_and_disturbs_nothing(
    open_pool: Open, capfd: pytest.CaptureFixture[str]
) -> None:
    pool = open_pool(1, leak=0)
    pool.reset(0, 1)
    pool.step(0, "print")
    pool.close()
    out, err = capfd.readouterr()
    assert (out, sorted(err.splitlines())) == ("", ["noise", "noise from C"])


def test_an_answer_that_cannot_leave_its_process_is_a_fault(open_pool: Open) -> None:
    pool = open_pool(1)
    pool.reset(0, 1)
    with pytest.raises(EnvironmentFault, match=r"failed in step\(\): its answer cannot leave the worker process: .*pickle"):
        pool.step(0, "odd")


def test_ctrl_c_while_a_worker_is_busy_leaves_the_pool_usable(open_pool: Open) -> None:
    pool = open_pool(2)
    ask(pool, "reset")
    assert all(os.getpgid(pid) == pid for pid in pids(pool))  # a terminal's Ctrl-C reaches this process only
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        ask(pool, "step", "hang", slots=1)
    quiet = open_pool(0)
    ask(quiet, "reset")
    assert ask(pool, "step", "a") == ask(quiet, "step", "a")


def test_closing_ends_the_processes_and_a_closed_pool_can_be_used_again(open_pool: Open) -> None:
    pool = open_pool(2)
    ask(pool, "reset")
    before = pids(pool)
    pool.close()
    assert pids(pool) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in before)
    assert pool.reset(0, 3) == open_pool(0).reset(0, 3)


def test_a_pool_that_is_forgotten_leaves_no_process(open_pool: Open) -> None:
    pool = EnvPool("lab/Odds-v0", workers=Workers(1))
    pool.reset(0, 1)
    (pid,) = pids(pool)
    del pool
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


def test_an_option_the_environment_refuses_is_the_same_sentence(open_pool: Open) -> None:
    for count in (0, 1):
        with pytest.raises(UserError, match=r"^no environment is registered as 'lab/Od-v0'; did you mean 'lab/Odds-v0'\?$"):
            EnvPool("lab/Od-v0", workers=Workers(count)).reset(0, 1)
        with pytest.raises(UserError, match=r"'agentdistill/Arithmetic-v0' did not accept env.options .*'colour'"):
            EnvPool("agentdistill/Arithmetic-v0", {"colour": 3}, workers=Workers(count)).reset(0, 1)


def test_options_that_cannot_leave_this_process_are_refused(open_pool: Open) -> None:
    with pytest.raises(UserError, match=r"env\.options of 'lab/Odds-v0' hold what cannot be sent to worker processes"):
        open_pool(1, hook=lambda: 0).reset(0, 1)


def test_environments_in_workers_are_not_handed_out(open_pool: Open) -> None:
    pool = open_pool(1)
    with pytest.raises(RuntimeError, match="are in worker processes"):
        pool.env(0)
    assert pool.prototype().unwrapped.plan
