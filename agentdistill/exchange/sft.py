"""Data sets for supervised fine-tuning, in the forms that TRL's `SFTTrainer` takes. Written only.

`messages` is a conversation a row. `prompt-completion` is a row for each message of the student's: all before it, and it. Tool
calls stand in the text as the student wrote them. Episodes whose environment failed are left out.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentdistill.errors import UserError
from agentdistill.exchange.dialogue import plain
from agentdistill.exchange.lines import write_lines
from agentdistill.exchange.registry import Format, register
from agentdistill.exchange.source import Source
from agentdistill.trajectory import StopReason

SHAPES = ("messages", "prompt-completion")
INSTALL = "pip install datasets"


def write(source: Source, out: Path, *, shape: str = "messages") -> int:
    """JSON lines where `out` ends in `.jsonl`; otherwise a folder that `datasets.load_from_disk` reads.

    Returns:
        How many rows.

    Raises:
        UserError: when a folder is wanted and `datasets` is not installed, or the disk refuses.
    """
    if out.suffix == ".jsonl":
        return write_lines(out, rows(source, shape))
    if importlib.util.find_spec("datasets") is None:
        raise UserError(f"a folder for `datasets` needs that package ({INSTALL}); install it, or let --out end in .jsonl")
    return _save_to_disk(source, out, shape)


def rows(source: Source, shape: str) -> Iterator[dict[str, Any]]:
    """The rows, one in memory at a time."""
    for _, trajectory in source:
        if trajectory.stop_reason is StopReason.ENV_ERROR or not trajectory.turns:
            continue
        messages = plain(trajectory)
        if shape == "messages":
            yield {"messages": messages}
            continue
        first = len(trajectory.messages)
        for place in range(first, len(messages)):
            if messages[place]["role"] == "assistant" and trajectory.turns[(place - first) // 2].author == "student":
                yield {"prompt": messages[:place], "completion": [messages[place]]}


def _save_to_disk(source: Source, out: Path, shape: str) -> int:
    """By way of JSON lines on disk, so that memory holds a part at a time and nothing is pickled."""
    import datasets

    scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        lines = scratch / "rows.jsonl"
        if not (n := write_lines(lines, rows(source, shape))):
            raise UserError("there is no trajectory to export; a data set without rows has no columns")
        cache = str(scratch / "cache")
        made = datasets.load_dataset("json", data_files=str(lines), split="train", cache_dir=cache)
        made.save_to_disk(str(scratch / "made"))
        os.replace(scratch / "made", out)
        return n
    except OSError as error:
        raise UserError(f"'{out}' could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


register(Format("sft", "a data set for TRL's SFTTrainer", write=write, options={"shape": SHAPES}))
