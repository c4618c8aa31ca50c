"""Models that come as GGUF files, kept as Transformers' own files once they were read.

Reading one means parsing every token and every name in Python: SmolLM2-135M takes a quarter of a minute so, and two seconds as
kept. What is kept is the same to the bit, and is found by the file's content and by what read it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

CACHE = "AGENTDISTILL_CACHE"
"""The variable that names the folder for it; `~/.cache/agentdistill` by default."""
_READERS = ("transformers", "gguf", "tokenizers")
_PROBE = "A probe, with 12 digits:\n<tool_call>{\"name\": 'x'}</tool_call> é 日本"


def find(file: Path) -> Path | None:
    """The folder in which a GGUF file's model is kept, if it is."""
    with contextlib.suppress(OSError, RuntimeError):  # a file that cannot be read; nobody's home
        folder = _place(file)
        if (folder / "config.json").is_file():
            return folder
    return None


def keep(file: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Keep what was read from a GGUF file; not where the disk has no room, or it would be read back as something else."""
    with contextlib.suppress(OSError, RuntimeError, ValueError, SafetensorError):
        place = _place(file)
        place.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f"{place.name}.", suffix=".partial", dir=place.parent))
        try:
            tokenizer.save_pretrained(part)
            model.save_pretrained(part)
            if _same(tokenizer, AutoTokenizer.from_pretrained(part, local_files_only=True)):
                part.rename(place)  # refused where another process was first
        finally:
            shutil.rmtree(part, ignore_errors=True)


def forget(folder: Path) -> None:
    """Drop what cannot be read any more."""
    shutil.rmtree(folder, ignore_errors=True)


def is_kept(source: str) -> bool:
    """Whether a folder is one of these."""
    with contextlib.suppress(RuntimeError):
        return Path(source).parent == _cache()
    return False


def _place(file: Path) -> Path:
    about = file.stat()
    return _cache() / f"{file.stem}-{_digest(str(file), about.st_size, about.st_mtime_ns)}"


def _cache() -> Path:
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "agentdistill") / "models"


@functools.lru_cache
def _digest(file: str, size: int, changed: int) -> str:
    """Of a file's content, and of the versions of what reads it."""
    with open(file, "rb") as content:
        found = hashlib.file_digest(content, "sha256")
    for name in _READERS:
        with contextlib.suppress(PackageNotFoundError):
            found.update(f"{name} {version(name)}".encode())
    return found.hexdigest()[:16]


def _same(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    ends = ("chat_template", "eos_token_id", "pad_token_id", "bos_token_id", "unk_token_id")
    return (
        one.get_vocab() == other.get_vocab()
        and all(getattr(one, name) == getattr(other, name) for name in ends)
        and one(_PROBE)["input_ids"] == other(_PROBE)["input_ids"]
    )
