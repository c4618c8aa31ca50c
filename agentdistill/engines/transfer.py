"""New weights by vLLM's weight-transfer API: an engine for workers that share this machine's memory.

vLLM's own transports (NCCL, CUDA IPC, Ray) need GPUs or a cluster. This one, `memory`, maps a file of a memory file system into
the worker and loads it layer by layer, as those do (vLLM 0.32, `distributed/weight_transfer`): no disk, no new model loader.
vLLM imports this module in its workers, by the name of `Extension`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferInitRequest,
    WeightTransferUpdateInfo,
    WeightTransferUpdateRequest,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

NAME = "agentdistill-memory"


@dataclass
class Beginning(WeightTransferInitInfo):  # type: ignore[misc]  # vLLM is typed, but not where we are checked
    """Nothing has to be agreed on."""


@dataclass
class Weights(WeightTransferUpdateInfo):  # type: ignore[misc]
    """A safetensors file that the worker sees."""

    path: str


class MemoryTransfer(WeightTransferEngine[Beginning, Weights]):  # type: ignore[misc]
    """The worker's side."""

    init_info_cls, update_info_cls = Beginning, Weights

    def init_transfer_engine(self, init_info: Beginning) -> None:
        """Nothing to do."""

    def start_weight_update(self) -> None:
        """Have each layer wait for its new weights."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Load; vLLM's own waits for an accelerator afterwards, which there may be none of."""
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: Weights) -> None:
        """Load the file's tensors."""
        self.model.load_weights(_tensors(update_info.path, self.device))
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()

    def finish_weight_update(self) -> None:
        """Put the new weights in place, in the layout that each layer computes with."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Nothing is held."""


def _tensors(path: str, device: torch.device) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(path, framework="pt", device=str(device)) as file:
        for name in file.keys():  # noqa: SIM118  # it is no mapping
            yield name, file.get_tensor(name)


class Extension:
    """What vLLM mixes into its workers; being imported is all it is for."""


if NAME not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(NAME, MemoryTransfer)


def arguments() -> dict[str, Any]:
    """Of vLLM's engine, for this transport."""
    return {"weight_transfer_config": {"backend": NAME}, "worker_extension_cls": f"{__name__}.{Extension.__name__}"}


async def begin(llm: Any) -> None:
    """Prepare vLLM's `AsyncLLM`, once."""
    await llm.init_weight_transfer_engine(WeightTransferInitRequest())


async def send(llm: Any, folder: Path) -> None:
    """Have it take the weights in a folder."""
    await llm.start_weight_update()
    await llm.update_weights(WeightTransferUpdateRequest({"path": str(folder / "model.safetensors")}))
    await llm.finish_weight_update()
