"""Devices by their makers' figures, and what share of those this library's kind of work reaches."""

from __future__ import annotations

from dataclasses import dataclass

from agentdistill.errors import UserError, nearest


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator.

    Attributes:
        flops: of dense matrix products, per second, by the width of the numbers: 4 bytes (fp32, without TF32) and 2 (bf16).
        bandwidth: bytes of its memory read a second.
        memory: bytes.
        link: bytes a second from one to another of the same node, one way.
        reached: shares of `flops` in a forward pass and in training, and of `bandwidth` in decoding and in optimizer
            steps. Usual ones for eager Transformers models; nobody has measured them for this library.
        layer_seconds: that one layer's kernels take to launch, however small they are.
    """

    name: str
    flops: dict[int, float]
    bandwidth: float
    memory: float
    link: float
    reached: tuple[float, float, float] = (0.45, 0.35, 0.5)
    layer_seconds: float = 6e-4


DEVICES = {
    # NVIDIA's data sheets of the SXM modules: dense, without sparsity; NVLink's figures there are both ways together.
    "h100": Device("H100 80 GB", {4: 67e12, 2: 989e12}, 3.35e12, 80e9, 450e9),
    "a100": Device("A100 80 GB", {4: 19.5e12, 2: 312e12}, 2.04e12, 80e9, 300e9),
    "a100-40gb": Device("A100 40 GB", {4: 19.5e12, 2: 312e12}, 1.56e12, 40e9, 300e9),
}
HERE = "here"
"""The machine that the plan is made on, which is measured."""


def device(name: str) -> Device:
    """A device by its name.

    Raises:
        UserError: for an unknown one.
    """
    if name not in DEVICES:
        raise UserError(f"there are no figures of device '{name}'{nearest(name, [*DEVICES, HERE])}")
    return DEVICES[name]
