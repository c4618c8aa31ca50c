"""How large models are, without loading them."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import snapshot_download

from agentdistill.config import LoraSection
from agentdistill.errors import UserError
from agentdistill.policies.adapter import base_of, is_adapter
from agentdistill.policies.load import folder_of, is_tiny
from agentdistill.policies.tiny import tiny_shape

_HEADER = 1 << 27  # bytes; more is no header


def parameters(ref: str, vocabulary: int = 512) -> int | None:
    """How many parameters a model has; None where that cannot be told before it is downloaded, or it cannot be found.

    Of a GGUF file, whose weights take half a byte to four, it is what a file of half bytes would hold: no more than that.
    """
    with contextlib.suppress(UserError):  # what is wrong with a reference is said where it is loaded
        return _parameters(ref, vocabulary)
    return None


def _parameters(ref: str, vocabulary: int) -> int | None:
    if is_tiny(ref):
        width, depth = tiny_shape(ref.removeprefix("tiny:"))
        return vocabulary * width + depth * (4 * width**2 + 8 * width**2)
    if is_adapter(ref):
        return parameters(base_of(ref), vocabulary)
    folder = folder_of(ref) or _cached(ref)
    if folder is None:
        return None
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return sum(math.prod(shape) for file in files for shape in _shapes(file))
    return sum(2 * file.stat().st_size for file in folder.glob("*.gguf")) or None


def adapter_parameters(ref: str, lora: LoraSection) -> int | None:
    """How many parameters an adapter over all linear layers has at most; None where the model's shapes are not known."""
    with contextlib.suppress(UserError):
        return _adapter_parameters(ref, lora)
    return None


def _adapter_parameters(ref: str, lora: LoraSection) -> int | None:
    if is_tiny(ref):
        width, depth = tiny_shape(ref.removeprefix("tiny:"))
        return depth * lora.r * (4 * 2 * width + 3 * (width + 8 * width // 3))
    folder = folder_of(ref) or _cached(ref)
    files = sorted(folder.glob("*.safetensors")) if folder is not None else []
    if not files:
        return None
    return lora.r * sum(sum(shape) for file in files for shape in _shapes(file) if len(shape) == 2)


def _cached(ref: str) -> Path | None:
    """The hub's files of a model that was downloaded before."""
    name, _, revision = ref.partition("@")
    with contextlib.suppress(Exception):  # whatever is wrong with the name is said where it is loaded
        return Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    return None


def _shapes(file: Path) -> Iterator[tuple[int, ...]]:
    """Shapes of a safetensors file's tensors, from its header."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length)) if length < _HEADER else {}
    except (OSError, ValueError) as error:
        raise UserError(f"'{file}' is no safetensors file: {error}") from error
    yield from (tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
