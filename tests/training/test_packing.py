"""A run whose passes are rows without padding, and one whose passes pad: the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import FalconConfig, FalconForCausalLM, PreTrainedTokenizerFast

from agentdistill import api
from agentdistill.errors import UserError
from agentdistill.policies.model import CausalLM
from tests.training.test_run import BASE, lines, run

ONLY: dict[str, Any] = {"eval.tasks": 1, "eval.every": 0}


def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and columns of each scoring and training pass from now on."""
    shapes: list[tuple[int, int]] = []
    hidden = CausalLM.hidden

    def seen(lm: CausalLM, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        if kwargs.get("use_cache") is False:
            shapes.append((ids.shape[0], ids.shape[1]))
        return hidden(lm, ids, **kwargs)

    monkeypatch.setattr(CausalLM, "hidden", seen)
    return shapes


def test_a_run_gives_the_same_losses_with_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> None:
    shapes, records = watched(monkeypatch), {}
    for packing in (None, False):
        shapes.clear()
        folder, _ = run(tmp_path / str(packing), **ONLY, **{"train.packing": packing, "train.iterations": 3, "train.lr": 1e-4})
        records[packing] = lines(folder, "iteration")
        rows = [n for n, columns in shapes if columns > 8]  # fewer are what a model is tried with when it is loaded
        assert len(rows) >= 2 * 3
        assert any(n > 1 for n in rows) == (packing is False)
    for one, other in zip(records[None], records[False], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
        assert one["action_tokens"] == other["action_tokens"]
    assert len({record["loss"] for record in records[None]}) == 3


@pytest.mark.parametrize("packing", [None, False])
def test_a_supervised_stage_packs_or_pads_as_the_rest_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: bool | None
) -> None:
    shapes = watched(monkeypatch)
    api.sft(BASE, role="student", out=tmp_path / "r", say=print, **ONLY, **{"train.packing": packing})
    rows = {n for n, columns in shapes if columns > 8}
    assert rows == {BASE["student"]["sft"]["batch"] if packing is False else 1}


def test_packing_is_refused_for_a_student_that_cannot(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True}
    folder = tmp_path / "model"
    FalconForCausalLM(FalconConfig(vocab_size=len(tokenizer), pad_token_id=0, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    student = {"student.model": str(folder), "student.sft": None, "teacher.model": str(folder), "teacher.sft": None}
    with pytest.raises(UserError, match=r"train.packing is true, and model '.*' cannot take several sequences in one row"):
        api.train(BASE, out=tmp_path / "r", say=print, **ONLY, **student, **{"train.packing": True})
