"""Logs of inspect_ai: a `.json` file, or an `.eval` file, which is a zip of JSON. The package itself is not needed."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from agentdistill.errors import UserError
from agentdistill.exchange.conversation import BadRecord, Conversation, checked, messages_from, text, tools_from
from agentdistill.exchange.registry import Format, Record, register
from agentdistill.trajectory import StopReason

GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
"""What inspect_ai's letters count: correct, incorrect, partially correct, no answer."""
_LIMITS = {"message": StopReason.MAX_TURNS, "context": StopReason.PROMPT_OVERFLOW, "token": StopReason.TRUNCATED}
_ZSTD = 93  # the zip format's number of Zstandard, which Python reads from 3.14 on
_LOCAL = struct.Struct("<26x2H")  # lengths of name and extra field in front of a member's data


def read(path: Path) -> Iterator[Record]:
    """The samples of a log.

    Raises:
        UserError: when the file is no log of inspect_ai.
    """
    try:
        for header, where, sample in _members(path) if zipfile.is_zipfile(path) else _whole(path):
            yield where, _told(sample, header)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, pa.ArrowException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"'{path}' cannot be read as a log of inspect_ai: {reason}") from error


def _whole(path: Path) -> Iterator[tuple[dict[str, Any], str, Any]]:
    log = json.loads(path.read_bytes())
    if not isinstance(log, dict) or not isinstance(log.get("eval"), dict):
        raise ValueError("it has no entry 'eval'")
    for n, sample in enumerate(log.get("samples") or [], 1):
        yield log["eval"], f"sample {n}", sample


def _members(path: Path) -> Iterator[tuple[dict[str, Any], str, Any]]:
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        about = next((infos[name] for name in ("header.json", "_journal/start.json") if name in infos), None)
        if about is None:
            raise ValueError("it has neither header.json nor _journal/start.json")
        header = json.loads(_content(archive, file, about))["eval"]
        for name in sorted(name for name in infos if name.startswith("samples/") and name.endswith(".json")):
            yield header, name, json.loads(_content(archive, file, infos[name]))


def _content(archive: zipfile.ZipFile, file: IO[bytes], info: zipfile.ZipInfo) -> bytes:
    """What a member of a zip holds, Zstandard included."""
    if info.compress_type != _ZSTD:
        return archive.read(info)
    file.seek(info.header_offset)
    start = file.read(_LOCAL.size)
    file.seek(sum(_LOCAL.unpack(start)), 1)
    packed = file.read(info.compress_size)
    content = bytes(pa.CompressedInputStream(pa.BufferReader(packed), "zstd").read())
    if len(content) != info.file_size:
        raise ValueError(f"'{info.filename}' is cut short")
    return content


def _told(sample: Any, header: Mapping[str, Any]) -> Conversation | str:
    try:
        if not isinstance(sample, dict):
            raise BadRecord("it is no JSON object")
        return conversation(sample, header)
    except BadRecord as error:
        return str(error)


def conversation(sample: Mapping[str, Any], header: Mapping[str, Any]) -> Conversation:
    """One sample. Its first score is the reward.

    Args:
        header: the log's `eval` entry.

    Raises:
        BadRecord: where it is no conversation.
    """
    raw = _attached(sample.get("messages"), sample.get("attachments") or {})
    messages = checked(messages_from(raw))
    scores, limit, error = sample.get("scores"), sample.get("limit"), sample.get("error")
    reward = _grade(next(iter(scores.values()))) if isinstance(scores, dict) and scores else None
    stop = _LIMITS.get(str(limit.get("type")), StopReason.TRUNCATED) if isinstance(limit, dict) else StopReason.TERMINATED
    output = sample.get("output")
    choices = output.get("choices") if isinstance(output, dict) else None
    config = header.get("model_generate_config")
    heat = config.get("temperature") if isinstance(config, dict) else None
    return Conversation(
        messages, tools_from(_tools(sample.get("events"))), task_id=text(sample, "id"),
        env=f"inspect_ai/{text(header, 'task')}", model=text(header, "model"),
        temperature=float(heat) if isinstance(heat, int | float) else 1.0, reward=reward,
        stop=StopReason.ENV_ERROR if error else stop,
        cut=isinstance(choices, list) and any(_cut(choice) for choice in choices[:1]),
        error=str(error.get("message", error) if isinstance(error, dict) else error or ""),
    )  # fmt: skip


def _cut(choice: Any) -> bool:
    return isinstance(choice, dict) and choice.get("stop_reason") in ("max_tokens", "model_length")


def _grade(score: Any) -> float | None:
    """A score's value as a number, or None where it is none."""
    value = score.get("value") if isinstance(score, dict) else score
    if isinstance(value, str):
        try:
            return GRADES[value] if value in GRADES else float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) else None


def _tools(events: Any) -> Any:
    """The tools of the first call of the model that had some."""
    for event in events if isinstance(events, list) else []:
        if isinstance(event, dict) and event.get("event") == "model" and event.get("tools"):
            return event["tools"]
    return None


def _attached(value: Any, attachments: Mapping[str, Any]) -> Any:
    """`value` with long texts, which the log keeps apart, back in their places."""
    if isinstance(value, str) and value.startswith("attachment://"):
        return attachments.get(value.removeprefix("attachment://"), value)
    if isinstance(value, list):
        return [_attached(each, attachments) for each in value]
    if isinstance(value, dict):
        return {key: _attached(each, attachments) for key, each in value.items()}
    return value


register(Format("inspect", "logs of inspect_ai (.eval or .json)", read))
