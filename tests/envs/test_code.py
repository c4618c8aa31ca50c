"""`agentdistill/Code-v0`: every canonical solution passes, and no wrong one does, by error, by mutation or by cheating."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

import agentdistill as ad
from agentdistill.errors import UserError
from agentdistill.toolcall import format_call
from agentdistill.tools.sandbox import shared
from agentdistill.tools.sandbox.base import Limits, Status
from tests.envs.code_variants import CHEATS, DEAR, mutants
from tests.needs import missing, needs_data

needs_data("code")
LIMITS = {"cpu_seconds": 1.0, "wall_seconds": 4.0}  # for wrong solutions; right ones may take the default limits
SIZES = {"humaneval": 164, "mbpp": 427}
WORKERS = 2


@pytest.fixture(scope="module", autouse=True)
def sandbox() -> Any:
    try:
        return shared("auto")
    except UserError as error:
        return missing(str(error))


@pytest.fixture(scope="module", params=list(SIZES))
def dataset(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def envs(dataset: str, sandbox: Any) -> Iterator[list[gym.Env[str, str]]]:
    yield from make_envs(dataset, limits=LIMITS)


@pytest.fixture
def patient_envs(dataset: str, sandbox: Any) -> Iterator[list[gym.Env[str, str]]]:
    yield from make_envs(dataset)


def make_envs(dataset: str, **options: Any) -> Iterator[list[gym.Env[str, str]]]:
    made = [ad.make("agentdistill/Code-v0", dataset=dataset, **options) for _ in range(WORKERS)]
    yield made
    for env in made:
        env.close()


def hand_in(env: Any, seed: int, code: str) -> tuple[float, bool, str]:
    """Reward, whether the episode ended, and the reason, of a solution handed in at once."""
    env.reset(seed=seed)
    _, reward, terminated, _, _ = env.step(f"Here it is.\n```python\n{code}\n```\n")
    return float(reward), terminated, env.unwrapped.verdict.reason


def judge(envs: Sequence[Any], solutions: Sequence[tuple[int, str]]) -> list[tuple[float, bool, str]]:
    """`hand_in` for many, on as many threads as there are environments."""

    def work(worker: int) -> list[tuple[float, bool, str]]:
        return [hand_in(envs[worker], *each) for each in solutions[worker :: len(envs)]]

    with ThreadPoolExecutor(len(envs)) as pool:
        parts = list(pool.map(work, range(len(envs))))
    return [parts[i % len(envs)][i // len(envs)] for i in range(len(solutions))]


def problem(env: Any, seed: int) -> Any:
    return env.unwrapped.task(seed).answer


def test_every_canonical_solution_is_graded_correct(patient_envs: list[Any]) -> None:
    envs = patient_envs
    tasks = range(len(envs[0].unwrapped._tasks))
    assert len(tasks) == SIZES[envs[0].unwrapped.dataset]
    judged = judge(envs, [(seed, problem(envs[0], seed).solution) for seed in tasks])
    assert [(problem(envs[0], i).id, said) for i, said in enumerate(judged) if said[:2] != (1.0, True)] == []


def test_mutants_that_fail_a_plain_run_of_the_tests_are_graded_wrong(envs: list[Any], sandbox: Any) -> None:
    tasks = range(0, SIZES[envs[0].unwrapped.dataset], {"humaneval": 2, "mbpp": 4}[envs[0].unwrapped.dataset])

    def wrong_mutant(seed: int) -> tuple[int, str] | None:
        task = problem(envs[0], seed)
        found = [source for _, source in mutants(task.solution)]
        with closing(sandbox.open(Limits(cpu_seconds=2.0, wall_seconds=10.0))) as session:
            assert plainly_right(session, task, task.solution)
            for offset in range(0, len(found), max(1, len(found) // 4)):
                source = found[(offset + seed) % len(found)]
                if not plainly_right(session, task, source):
                    return seed, source
        return None

    with ThreadPoolExecutor(WORKERS) as pool:
        wrong = [each for each in pool.map(wrong_mutant, tasks) if each]
    assert len(wrong) > 0.9 * len(tasks)
    judged = judge(envs, wrong)
    assert [each for each, said in zip(wrong, judged, strict=True) if said[:2] != (0.0, True)] == []


def plainly_right(session: Any, problem: Any, source: str) -> bool:
    """Whether the tests pass when they are run the usual way, in one namespace with the solution."""
    tests = f"_proxies = {{{problem.entry!r}: {problem.entry}}}\n{problem.tests.source}"
    result = session.run(f"space = {{}}\nexec({source!r}, space)\nexec({tests!r}, space)")
    assert result.status is not Status.SANDBOX_ERROR
    return result.status is Status.OK


def cheats(dataset: str) -> list[tuple[str, int, str]]:
    """Every cheat on two tasks, the dear ones on one."""
    places = {"humaneval": (0, 53), "mbpp": (3, 301)}[dataset]
    cheap = [(name, seed, text) for seed in places for name, text in CHEATS.items()]
    return cheap + [(name, places[0], text) for name, text in DEAR.items()]


def test_cheats_are_graded_wrong_and_end_the_episode(envs: list[Any]) -> None:
    tried = cheats(envs[0].unwrapped.dataset)
    assert len(tried) > 120
    solutions = [(seed, fill(text, problem(envs[0], seed).entry)) for _, seed, text in tried]
    judged = judge(envs, solutions)
    assert [each[:2] for each, said in zip(tried, judged, strict=True) if said[:2] != (0.0, True)] == []


def fill(text: str, entry: str) -> str:
    return text.replace("{f}", entry).replace("{{", "{").replace("}}", "}")


def test_after_all_the_cheats_right_solutions_are_right(envs: list[Any]) -> None:
    assert hand_in(envs[0], 0, problem(envs[0], 0).solution)[0] == 1.0


@pytest.fixture
def env(sandbox: Any) -> Iterator[Any]:
    made = ad.make("agentdistill/Code-v0", dataset="humaneval", limits=LIMITS)
    yield made
    made.close()


def test_the_environment_keeps_gymnasiums_contract(env: Any) -> None:
    check_env(env.unwrapped, skip_render_check=True)


def test_a_solution_may_be_the_rest_of_the_function_only(env: Any) -> None:
    assert (
        hand_in(env, 0, "    return any(abs(a - b) < threshold for i, a in enumerate(numbers) for b in numbers[:i])")[0] == 1.0
    )


def test_imports_and_helpers_of_the_question_are_there_for_the_solution(env: Any) -> None:
    alone = "def decode_cyclic(s: str) -> str:\n    return encode_cyclic(encode_cyclic(s))"
    assert hand_in(env, 38, alone)[0] == 1.0


def test_a_solution_cannot_replace_the_helpers_of_the_tests(env: Any) -> None:
    assert hand_in(env, 38, "def encode_cyclic(s): return 'x'\ndef decode_cyclic(s): return 'x'")[0] == 0.0


def test_the_python_tool_keeps_state_within_an_episode_and_loses_it_after(env: Any) -> None:
    env.reset(seed=0)
    env.step(format_call("python", {"code": "x = 20"}))
    assert "21" in env.step(format_call("python", {"code": "x + 1"}))[0]
    env.reset(seed=0)
    assert "NameError" in env.step(format_call("python", {"code": "x + 1"}))[0]


def test_run_tests_shows_public_examples_and_no_hidden_test(env: Any) -> None:
    env.reset(seed=0)
    said = env.step(format_call("run_tests", {"code": "def has_close_elements(numbers, threshold): return True"}))[0]
    question = env.unwrapped.task(0).question
    assert "1 of 2 examples pass" in said
    assert "FAILED assert has_close_elements([1.0, 2.0, 3.0], 0.5) == False: got True" in said
    assert said.count("[1.0") == 1
    assert "[1.0, 2.0, 3.0], 0.5" in question


@pytest.mark.parametrize("seed", range(0, 164, 8))
def test_the_expert_tries_and_hands_in(env: Any, seed: int) -> None:
    env.reset(seed=seed)
    for _ in range(3):
        observation, reward, terminated, _, info = env.step(env.unwrapped.expert_action())
        assert "FAILED" not in observation
        if terminated:
            break
    assert (reward, info["success"]) == (1.0, True)


def test_a_block_beside_a_tool_call_is_not_handed_in(env: Any) -> None:
    env.reset(seed=0)
    message = f"```python\nx\n```\n{format_call('python', {'code': '1'})}"
    assert env.step(message)[2] is False


def test_a_message_without_code_is_told_how_to_hand_in(env: Any) -> None:
    env.reset(seed=0)
    observation, reward, terminated, _, _ = env.step("I think it is easy.")
    assert "```python" in observation
    assert (reward, terminated) == (0.0, False)


def test_sods_reward_is_an_option(sandbox: Any) -> None:
    env = ad.make("agentdistill/Code-v0", reward="sod", limits=LIMITS)
    right = env.unwrapped.task(0).answer.solution
    assert hand_in(env, 0, "x = 1")[0] == -1.0
    assert hand_in(env, 0, right)[0] == 1.0


def test_splits_are_those_of_the_data_sets() -> None:
    env: Any = ad.make("agentdistill/Code-v0", dataset="mbpp").unwrapped
    sizes = {split: len(env.task_seeds(split)) for split in ("train", "valid", "test")}
    assert sizes == {"train": 120, "valid": 43, "test": 257}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dataset": "humanevil"}, "did you mean 'humaneval'"),
        ({"limits": {"cpu_second": 1}}, "did you mean 'cpu_seconds'"),
        ({"reward": "sodd"}, "did you mean 'sod'"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ad.make("agentdistill/Code-v0", **options)


@pytest.mark.parametrize(
    "message",
    [
        "<answer>\n```python\n{code}\n```\n</answer>",
        "<answer>{code}</answer>",
        "```\nx = 1\n```\nBetter:\n```python\n{code}\n```",
        "```python3\n{code}\n```\nExample:\n```python\nprint(has_close_elements([1.0], 0.5))\n```\nOutput:\n```\nFalse\n```",
        "```python\nfrom __future__ import annotations\n{code}\n```",
        '```python\n"""Near numbers."""\nfrom __future__ import annotations\n{code}',
    ],
)
def test_a_solution_is_found_in_an_answer_or_in_the_block_that_defines_it(env: Any, message: str) -> None:
    env.reset(seed=0)
    assert env.step(message.replace("{code}", problem(env, 0).solution))[1:3] == (1.0, True)


def test_calls_may_be_written_in_another_format(sandbox: Any) -> None:
    env = ad.make("agentdistill/Code-v0", call_format="react", limits=LIMITS)
    env.reset(seed=0)
    for _ in range(2):
        observation, reward, terminated, _, _ = env.step(env.unwrapped.expert_action())
    assert (reward, terminated) == (1.0, True), observation
    env.close()
