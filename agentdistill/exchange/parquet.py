"""One flat Parquet file, for any DataFrame library. Written only: a run's own store is Parquet already, nested and exact."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from agentdistill.durable import sync
from agentdistill.errors import UserError
from agentdistill.exchange.registry import Format, register
from agentdistill.exchange.source import Source
from agentdistill.exchange.tables import TABLES, schema, tables


def write(source: Source, out: Path, *, table: str = "trajectories") -> int:
    """One of `tables.TABLES`, a row group for some trajectories each.

    Returns:
        How many rows.

    Raises:
        UserError: when the disk refuses.
    """
    temporary, n = out.with_name(f".{out.name}.{os.getpid()}.tmp"), 0
    try:
        with pq.ParquetWriter(temporary, schema(table, source.scorers()), compression="zstd") as writer:
            for part in tables(source, table):
                writer.write_table(part)
                n += part.num_rows
        sync(temporary)
        temporary.replace(out)
        sync(out.parent)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"'{out}' could not be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return n


register(Format("parquet", "a flat table, a row a trajectory, turn or token", write=write, options={"table": TABLES}))
