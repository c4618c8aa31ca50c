"""Weights & Biases tables: an offline run with one table, to be looked at there after `wandb sync`. Written only."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from agentdistill.errors import UserError
from agentdistill.exchange.registry import Format, register
from agentdistill.exchange.source import Source
from agentdistill.exchange.tables import schema, tables

INSTALL = "pip install 'agentdistill[wandb]'"


def write(source: Source, out: Path, *, table: str = "trajectories") -> int:
    """A folder with the run in it; `WANDB_MODE=online` logs it at once.

    A table is in memory as a whole: W&B knows no other way.

    Returns:
        How many rows.

    Raises:
        UserError: when `wandb` is not installed.
    """
    if importlib.util.find_spec("wandb") is None:
        raise UserError(f"W&B tables need the package wandb: {INSTALL}")
    import wandb

    columns = schema(table, source.scorers()).names
    data = [[_plain(value) for value in row.values()] for part in tables(source, table) for row in part.to_pylist()]
    scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        settings = wandb.Settings(console="off", silent=True, x_disable_stats=True)
        with wandb.init(dir=str(scratch), project="agentdistill", name=source.name, mode=mode, settings=settings) as run:
            run.log({table: wandb.Table(columns=columns, data=data, allow_mixed_types=True)})
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return len(data)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


register(Format("wandb", "a W&B run, offline, with a table", write=write, options={"table": ("trajectories", "turns")}))
