"""A tool environment's stored episodes, and a tokenizer's folder, which the exchange tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from agentdistill.chat import Chat
from agentdistill.policies.base import SamplingParams
from agentdistill.policies.scripted import ScriptedSampler
from agentdistill.pool import EnvPool
from agentdistill.rollout import Limits, Rollout, Task
from agentdistill.store import Store
from agentdistill.trajectory import Scores, Trajectory

LOGS = Path(__file__).parent / "logs"
CALL = '<tool_call>\n{"name": "calculator", "arguments": {"expression": "2 + 3"}}\n</tool_call>'
SCRIPTS = (
    ["Let me see.\n" + CALL, "\\boxed{5}"],  # words, a call, an answer
    [CALL + "\n" + CALL, "<tool_call>broken", "\\boxed{0}"],  # two calls, a malformed one
    ["<think>\nfirst\n</think>\n\n" + CALL, "é \U0001f600", "\\boxed{5}"],  # thinking, and what no call says
)


@pytest.fixture(scope="session")
def tokenizer_folder(chatml: Chat, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer whose template is ChatML's."""
    folder = tmp_path_factory.mktemp("tokenizer")
    chatml.tokenizer.save_pretrained(folder)
    return folder


def play_tools(tokenizer: PreTrainedTokenizerFast, n: int = 3) -> list[Trajectory]:
    """Episodes with a calculator: the scripts above in turn, on tasks of which some are won."""
    pool = EnvPool("agentdistill/Arithmetic-v0")
    env = pool.prototype().unwrapped
    chat = Chat(tokenizer, getattr(env, "tools", ()))

    def script(episode: int, turn: int) -> str:
        said = SCRIPTS[episode % len(SCRIPTS)]
        return said[min(turn, len(said) - 1)]

    rollout = Rollout(pool, ScriptedSampler(chat, script), chat, Limits(max_turns=4))
    played = rollout.run([Task(seed, 0, group=seed) for seed in range(n)], SamplingParams(max_tokens=400), "iter-000001")
    pool.close()
    for number, trajectory in enumerate(played):
        trajectory.success = number % 2 == 0
        scored = [-float(i) / 7 for i in range(trajectory.n_action_tokens)]
        trajectory.scores["big model"] = Scores(np.array(scored))
    return played


@pytest.fixture(scope="session")
def tool_run(chatml: Chat, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of the episodes with a calculator, and their tokenizer."""
    folder = tmp_path_factory.mktemp("tools") / "tools"
    played = play_tools(chatml.tokenizer)
    Store(folder / "store").write("iter-000001", played[:2])
    Store(folder / "store").write("rollout", played[2:])
    chatml.tokenizer.save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture
def said() -> tuple[list[str], Callable[[str], None]]:
    """Lines of progress, and what takes them."""
    lines: list[str] = []
    return lines, lines.append
