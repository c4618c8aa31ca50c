"""A tensor as an array that any process can read, of every dtype: Ray keeps arrays once a node, and pickle copies them once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Array:
    """A tensor's numbers.

    Attributes:
        content: `[bytes]` uint8; numpy has not every dtype of torch's.
    """

    content: np.ndarray[Any, Any]
    dtype: torch.dtype
    shape: tuple[int, ...]


def array(tensor: torch.Tensor) -> Array:
    """A tensor's numbers, in the same memory where it is contiguous and on the CPU."""
    here = tensor.detach().cpu().contiguous()
    return Array(here.reshape(-1).view(torch.uint8).numpy(), here.dtype, tuple(here.shape))


def tensor(array: Array) -> torch.Tensor:
    """An array as a tensor in the same memory, which is not to be written to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that it must not be written to
        return torch.from_numpy(array.content).view(array.dtype).reshape(array.shape)
