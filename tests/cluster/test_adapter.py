"""Ranks that train an adapter: as one process does, and its checkpoint holds the adapter alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader

from agentdistill.policies.adapter import attach
from agentdistill.training.optim import adamw
from agentdistill.training.sharded import FOLDER, load_sharded
from agentdistill.training.trainer import LocalTrainer
from tests.cluster.conftest import Pair
from tests.cluster.scenarios import model, play, weights
from tests.needs import needs

needs("peft", "pip install 'agentdistill[lora]'")


def test_two_ranks_train_an_adapter_as_one_process_does(pair: Pair, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    theirs, ours = pair.run(tmp_path / "two", "adapter")["adapter"], play("adapter", LocalTrainer, tmp_path / "one")
    assert theirs["losses"] == pytest.approx(ours["losses"], rel=1e-5)
    assert theirs["norms"] == pytest.approx(ours["norms"], rel=1e-4)
    for name, tensor in ours["weights"].items():
        torch.testing.assert_close(theirs["weights"][name], tensor, rtol=1e-3, atol=1e-5)
        if "lora_" not in name:
            assert torch.equal(theirs["weights"][name], tensor)
    fresh = attach(model(0), r=2, alpha=4, targets="all-linear", seed=1, base="x")
    before = weights(fresh)
    optimizer = adamw(fresh.model, 1e-3, (0.9, 0.999), 0.01)
    load_sharded(tmp_path / "two" / "adapter", fresh, optimizer)
    for name, tensor in fresh.own().items():
        assert torch.equal(tensor, theirs["own"][name])
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(fresh).items() if "lora_" not in name)
    assert {float(state["step"]) for state in optimizer.state.values()} == {3.0}
    stored = FileSystemReader(tmp_path / "two" / "adapter" / FOLDER).read_metadata().state_dict_metadata
    assert {name.removeprefix("weights.") for name in stored if name.startswith("weights.")} == fresh.own().keys()
