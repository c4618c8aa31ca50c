"""Experiments on the guessing game whose student and teacher are folders, so that each can be broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from agentdistill.policies.model import CausalLM
from agentdistill.training.state import save_model
from tests.conftest import spread_model

Maker = Callable[..., dict[str, Any]]


def two_layers(tokenizer: PreTrainedTokenizerFast, seed: int) -> CausalLM:
    lm = spread_model(tokenizer, seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in lm.model.model.layers.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)  # the context matters to what is said
    return lm


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    top = tmp_path_factory.mktemp("doctor")
    for name, seed in (("student", 1), ("teacher", 2)):
        save_model(top / name, two_layers(tokenizer, seed))
    return top


@pytest.fixture
def sound(folders: Path) -> dict[str, Any]:
    """An experiment that nothing is wrong with."""
    return {
        "env": {"id": "lab/Guess-v0", "max_turns": 4, "max_context": 256},
        "student": {"model": str(folders / "student")},
        "teacher": {"model": str(folders / "teacher")},
        "method": "opd-exact",
        "sampling": {"max_tokens": 6},
        "train": {"iterations": 2, "tasks": 3},
        "eval": {"tasks": 4, "temperature": 1.0},
    }
