"""A model as several processes hold it: FSDP2, a shard of every weight in each (`torch.distributed.fsdp.fully_shard`)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from agentdistill.policies.model import CausalLM
from agentdistill.training.head import ChunkLoss, loss_through_head
from agentdistill.training.recompute import decoder_layers
from agentdistill.training.update import States


def hollow(lm: CausalLM) -> CausalLM:
    """The model without its weights and its tokenizer, small enough to be sent; ties and adapters are kept."""
    return _with_weights(lm, torch.device("meta"))


def solid(lm: CausalLM) -> CausalLM:
    """A hollow model with room for its weights. On a CPU, memory that nobody has written to costs nothing yet."""
    return _with_weights(lm, torch.device("cpu"))


def _with_weights(lm: CausalLM, device: torch.device) -> CausalLM:
    memo: dict[int, object] = {id(lm.tokenizer): None}
    for p in lm.model.parameters():
        memo[id(p)] = nn.Parameter(torch.empty(p.shape, dtype=p.dtype, device=device), p.requires_grad)
    for b in lm.model.buffers():
        memo[id(b)] = b.detach().to("cpu", copy=True)  # small, and of no rank's GPU
    return copy.deepcopy(lm, memo)


class Pass(nn.Module):
    """A micro-batch's forward pass from ids to loss: body and head are gathered, and their gradients shared out, as one.

    Its value is 0; the loss is seen by who gives it.
    """

    def __init__(self, lm: CausalLM) -> None:
        super().__init__()
        self.model, self._lm = lm.model, lm

    def forward(self, states: States, loss: ChunkLoss) -> torch.Tensor:
        """See `update.Backward`."""
        return loss_through_head(self._lm, states(self._lm), loss)


def shard(lm: CausalLM, mesh: DeviceMesh) -> Pass:
    """Shard a model in place, layer by layer; gradients are summed over ranks, since the loss is.

    On a GPU it computes in bf16 and sums gradients in fp32; the shards are fp32 everywhere.
    """
    whole = Pass(lm)
    fast = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = fast if mesh.device_type == "cuda" else MixedPrecisionPolicy()
    for layer in (*decoder_layers(lm.model), whole):
        made = fully_shard(layer, mesh=mesh, mp_policy=policy)
        assert isinstance(made, FSDPModule)
        made.set_gradient_divide_factor(1.0)
        made.set_force_sum_reduction_for_comms(True)  # gloo knows no other way to not take the mean
    return whole


@torch.no_grad()
def fill(lm: CausalLM, weights: Mapping[str, torch.Tensor] | None) -> None:
    """Give a sharded model its weights.

    Args:
        weights: all of them by name, on rank 0; None on the others.
    """
    for name, parameter in lm.model.named_parameters():
        assert isinstance(parameter, DTensor)
        mine = parameter.to_local()
        given = torch.empty(parameter.shape, dtype=parameter.dtype, device=mine.device) if weights is None else weights[name]
        put(parameter, given.detach().to(mine.device), source=0)


@torch.no_grad()
def put(parameter: DTensor, whole: torch.Tensor, source: int | None = None) -> None:
    """Write a rank's shard of a whole tensor.

    Args:
        source: the rank that knows the tensor; None: every rank does.
    """
    given = distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=source)
    parameter.to_local().copy_(given.to_local())


@torch.no_grad()
def gather(lm: CausalLM) -> Iterator[tuple[str, torch.Tensor]]:
    """What is trained, whole, a tensor at a time. Every rank has to go through it."""
    for name, parameter in lm.model.named_parameters():
        if parameter.requires_grad:
            assert isinstance(parameter, DTensor)
            yield name, parameter.full_tensor()
