"""A small real environment, tiny models and chat templates that the tests of the engine share. No network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import hypothesis
import pytest
import torch
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from agentdistill import environment
from agentdistill.chat import Chat
from agentdistill.environment import TextEnv
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scripted import ScriptedSampler
from agentdistill.policies.tiny import tiny_model, train_tokenizer
from agentdistill.pool import EnvPool
from agentdistill.rollout import Limits, Rollout
from tests.training import scored_run
from tests.undrawn import undrawn as no_picture_is_drawn

torch.set_num_threads(1)
# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# In the manner of Qwen3: tools in a branch of its own, and thinking is stripped from all but the last answer.
THINKING = (
    "{% if tools %}{{ '<|im_start|>system\n# Tools\n' }}{% for t in tools %}{{ (t | tojson) + '\n' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}"
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}"
    "{% for m in messages %}{% set text = m.content %}"
    "{% if m.role == 'assistant' and loop.index0 < ns.last and '</think>' in text %}"
    "{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + text + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def pytest_configure() -> None:
    """Give Ctrl-C its meaning back: what a shell starts in the background ignores it, and so would the tests about it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class GuessEnv(TextEnv):
    """Find a number below `size`; the seed chooses it.

    `fault` names a way to break: raise, exit, number, none, surrogate, nan, info, calls, reset, plan, expert or make, at the
    step `fault_at`, for the seeds in `fault_seeds` (all, when empty).
    """

    def __init__(
        self, *, size: int = 16, limit: int = 100, system: str = "Guess the number.", fault: str = "", fault_at: int = 1,
        fault_seeds: Sequence[int] = (), chatter: int = 0,
    ) -> None:  # fmt: skip
        if fault == "make":
            raise RuntimeError("no engine")
        self.size, self.limit, self.system_prompt, self.chatter = size, limit, system, chatter
        self.fault, self.fault_at, self.fault_seeds = fault, fault_at, tuple(fault_seeds)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.seed = int(seed or 0)
        self.secret, self.low, self.high, self.steps = random.Random(self.seed).randrange(self.size), 0, self.size, 0
        if self._breaks("reset"):
            raise RuntimeError("cannot reset")
        return f"0 to {self.size - 1}", {"task_id": f"guess-{self.seed}"}

    def step(self, action: str) -> tuple[Any, float, bool, bool, Any]:
        self.steps += 1
        if self.steps == self.fault_at:
            broken: dict[str, tuple[Any, float, Any]] = {
                "number": (7, 0.0, {}), "none": (None, 0.0, {}), "surrogate": ("\ud800", 0.0, {}),
                "nan": ("x", float("nan"), {}), "info": ("x", 0.0, None), "calls": ("x", 0.0, {"tool_calls": ["x"]}),
            }  # fmt: skip
            if self._breaks("raise"):
                raise ValueError("broken pipe to the game")
            if self._breaks("exit"):
                raise SystemExit(0)
            if self.fault in broken and self._breaks(self.fault):
                observation, reward, info = broken[self.fault]
                return observation, reward, False, False, info
        try:
            guess = int(action)
        except ValueError:
            guess = -1
        if guess == self.secret:
            return "yes", 1.0, True, False, {"success": True}
        if guess < self.secret:
            said, self.low = "higher", max(self.low, guess + 1)
        else:
            said, self.high = "lower", min(self.high, guess)
        return said + " " * self.chatter, 0.0, False, self.steps >= self.limit, {"success": False}

    def expert_action(self) -> str | None:
        if self._breaks("expert"):
            raise KeyError("lost")
        return str((self.low + self.high) // 2)

    def random_action(self, rng: random.Random) -> str:
        return str(rng.randrange(self.size))

    def plan(self) -> str:
        if self._breaks("plan"):
            raise OSError("no plan file")
        return f"say {self.secret}"

    def _breaks(self, fault: str) -> bool:
        return self.fault == fault and (not self.fault_seeds or self.seed in self.fault_seeds)


class MuteEnv(gym.Env[str, str]):
    """A plain Gymnasium environment: no expert, no plan, no success in `info`, and a system prompt of None."""

    system_prompt = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return "go", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return "done", 1.0, True, False, {}


@pytest.fixture(scope="session", autouse=True)
def registered() -> Iterator[None]:
    for name, entry in {"lab/Guess-v0": GuessEnv, "lab/Mute-v0": MuteEnv}.items():
        environment.register(name, entry)
    yield
    for name in ("lab/Guess-v0", "lab/Mute-v0"):
        environment.unregister(name)


def _chatml_tokenizer(template: str) -> PreTrainedTokenizerFast:
    tokenizer = train_tokenizer(["higher lower user assistant system 0 to 15\n"] * 3, 290)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    tokenizer.add_tokens([AddedToken("<|im_start|>", special=True, normalized=False)], special_tokens=True)
    plain = ("<think>", "</think>", "<tool_call>")  # tokens, but not control tokens, as in Qwen3
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in plain])
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """The tag template's tokenizer, as tiny models have it."""
    return train_tokenizer(["higher lower yes 0 to 15 Guess the number.\n"] * 3, 280)


@pytest.fixture(scope="session")
def chat(tokenizer: PreTrainedTokenizerFast) -> Chat:
    return Chat(tokenizer)


@pytest.fixture(scope="session")
def chatml() -> Chat:
    return Chat(_chatml_tokenizer(CHATML))


@pytest.fixture(scope="session")
def thinking_tokenizer() -> PreTrainedTokenizerFast:
    return _chatml_tokenizer(THINKING)


@pytest.fixture(scope="session")
def thinking(thinking_tokenizer: PreTrainedTokenizerFast) -> Chat:
    return Chat(thinking_tokenizer)


def spread_model(tokenizer: PreTrainedTokenizerFast, seed: int, width: int = 32) -> CausalLM:
    """A tiny model from random weights whose distributions are far from uniform."""
    model = tiny_model(f"{width}x2", len(tokenizer), seed, context=512)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(8)
    return CausalLM(model, tokenizer, f"tiny-{seed}")


@pytest.fixture(scope="session")
def make_lm(tokenizer: PreTrainedTokenizerFast) -> Callable[[int], CausalLM]:
    """A new model of a seed."""
    return lambda seed: spread_model(tokenizer, seed)


@pytest.fixture
def model(make_lm: Callable[[int], CausalLM], tmp_path: Path) -> str:
    """The folder of a small model with random weights."""
    lm = make_lm(1)
    lm.model.save_pretrained(tmp_path / "m")
    lm.tokenizer.save_pretrained(tmp_path / "m")
    return str(tmp_path / "m")


@pytest.fixture(scope="session")
def make_rollout() -> Callable[..., Rollout]:
    """A rollout over `lab/Guess-v0` whose messages are `script(episode, turn)`."""

    def make(
        chat: Chat, script: Callable[[int, int], str], limits: Limits | None = None, *, privileged: bool = False,
        **options: Any,
    ) -> Rollout:  # fmt: skip
        pool = EnvPool("lab/Guess-v0", options)
        return Rollout(pool, ScriptedSampler(chat, script), chat, limits or Limits(), privileged=privileged)

    return make


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Reports without pictures: `pytestmark = pytest.mark.usefixtures("undrawn")`."""
    with no_picture_is_drawn():
        yield


@pytest.fixture(scope="session")
def guess_run(tmp_path_factory: pytest.TempPathFactory, registered: None) -> Path:
    """A finished run on the guessing game (see `scored_run`), which no test may change."""
    with no_picture_is_drawn():
        return scored_run.play(tmp_path_factory.mktemp("guess") / "run")
