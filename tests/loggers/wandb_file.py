"""What stands in a `.wandb` file: W&B's records in LevelDB's log format, read without W&B's own (private) reader."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7


def payloads(path: Path) -> Iterator[bytes]:
    """The records of a file: chunks in blocks of 32 KiB, each with checksum, length, and whether it begins or ends a record."""
    data, at, parts = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):
            yield parts
            parts = b""


def history(path: Path) -> list[dict[str, Any]]:
    """The logged rows, in order."""
    from wandb.proto import wandb_internal_pb2 as pb

    rows = []
    for payload in payloads(path):
        record = pb.Record()
        record.ParseFromString(payload)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows
