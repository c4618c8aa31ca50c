"""The method on one page (`experiments/reference.py`) and the library, side by side from the same weights."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from agentdistill import api, environment
from agentdistill.chat import TAG_TEMPLATE

pytestmark = pytest.mark.usefixtures("undrawn")  # nobody looks at the runs' pictures

PAGE = Path(__file__).parent.parent / "experiments" / "reference.py"


@pytest.fixture(scope="module")
def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", PAGE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def world(page: ModuleType) -> Iterator[str]:
    class EchoEnv(environment.TextEnv):
        """The page's game as an environment."""

        def task_seeds(self, split: str) -> Sequence[int]:
            return {"train": page.TRAIN_TASKS, "test": range(60, 61)}[split]

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
            self.game = page.Echo(seed)
            return self.game.shown(), {}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            reward = self.game.say(action)
            return self.game.shown(), reward, not self.game.shown(), False, {}

    environment.register("lab/Echo-v0", EchoEnv)
    yield "lab/Echo-v0"
    environment.unregister("lab/Echo-v0")


def save(page: ModuleType, model: LlamaForCausalLM, folder: Path) -> str:
    """The model with a tokenizer of the page's tokens."""
    raw = Tokenizer(models.WordLevel({token: i for i, token in enumerate(page.VOCABULARY)}))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    raw.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<|pad|>", eos_token="<|end|>",
        extra_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = TAG_TEMPLATE
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_the_librarys_losses_and_weights_are_those_of_the_page(page: ModuleType, world: str, tmp_path: Path) -> None:
    student, teacher = page.make_model(1), page.make_model(2)
    names = {role: save(page, model, tmp_path / role) for role, model in (("student", student), ("teacher", teacher))}
    losses = page.train(student, teacher)
    api.train(
        {
            "seed": page.SEED,
            "env": {"id": world, "max_turns": page.MAX_TURNS, "max_context": 128},
            "student": {"model": names["student"]},
            "teacher": {"model": names["teacher"]},
            "method": "sod",
            "schedule": {"kind": "tcod-f2b", "start": page.START, "every": page.EVERY},
            "sampling": {"max_tokens": page.MAX_TOKENS},
            "train": {
                "iterations": page.ITERATIONS, "tasks": page.TASKS, "rollouts": page.ROLLOUTS,
                "minibatches": page.MINIBATCHES, "lr": page.LR,
            },
            "eval": {"tasks": 1},
        },
        out=tmp_path / "run",
        say=lambda text: None,
    )  # fmt: skip
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    iterations = [r for r in records if r["kind"] == "iteration"]
    assert [r["loss"] for r in iterations] == pytest.approx(losses, abs=1e-6)
    assert min(abs(loss) for loss in losses) > 0.01
    # Each of the three additions, and the clips, are at work.
    assert [r["depth"] for r in iterations] == [2, 3, 4]
    assert all(w < 1.2 and w != 1 for w in iterations[-1]["weight_by_step"][1:])
    assert iterations[-1]["reward"] > 0
    assert all(max(r[clip] for r in iterations) > 0 for clip in ("clip_low", "clip_high", "clip_dual"))
    trained = LlamaForCausalLM.from_pretrained(tmp_path / "run" / "final")
    for (name, ours), theirs in zip(trained.named_parameters(), student.parameters(), strict=True):
        apart = (ours - theirs).abs()
        # Adam divides a gradient by its own size: where one is nearly zero, its rounding is written large. 12 updates of 1e-2.
        assert apart.max() <= 5e-5, name
        assert apart.mean() <= 1e-6, name


def test_the_page_is_short_and_stands_alone() -> None:
    source = PAGE.read_text()
    assert len(source.splitlines()) <= 300
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]
        for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    }  # fmt: skip
    assert imported - {"__future__", "dataclasses", "hashlib", "random"} == {"numpy", "torch", "transformers"}


def test_step_weights_are_the_running_product_of_the_paper(page: ModuleType) -> None:
    rng = random.Random(0)
    means = [rng.uniform(0.05, 2) for _ in range(6)]
    product, expected = 1.0, [1.0]
    for before, after in itertools.pairwise(means):
        product *= (before + page.EPS) / (after + page.EPS)
        expected.append(min(product, 1 + page.DELTA))
    step = np.repeat(np.arange(6), 3)
    assert page.sod(np.repeat(means, 3), step) == pytest.approx(np.repeat(expected, 3))
