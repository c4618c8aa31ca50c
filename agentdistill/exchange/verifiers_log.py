"""Logs of verifiers up to 0.1: `results.jsonl`, a rollout a line, with `prompt`, `completion` and `reward`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agentdistill.exchange.conversation import BadRecord, Conversation, checked, messages_from, number, text, tools_from
from agentdistill.exchange.lines import read_lines
from agentdistill.exchange.registry import Format, Record, register
from agentdistill.trajectory import StopReason


def read(path: Path) -> Iterator[Record]:
    """The rollouts of a file; `metadata.json` beside it, where there is one, says of which environment and model."""
    about = _about(path.with_name("metadata.json"))
    return read_lines(path, lambda raw: conversation(raw, about))


def _about(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return {name: found[name] for name in ("env_id", "model") if name in found} if isinstance(found, dict) else {}


def conversation(raw: Mapping[str, Any], about: Mapping[str, Any]) -> Conversation:
    """One rollout of `results.jsonl`.

    Args:
        about: `env_id` and `model`, where the rollout itself does not say.

    Raises:
        BadRecord: where it is none.
    """
    raw = {**about, **raw}
    for name in ("prompt", "completion"):
        if name not in raw:
            raise BadRecord(f"it has no entry '{name}'")
    messages = checked(messages_from(_chat(raw["prompt"], "user"), "prompt") + _completion(raw["completion"]))
    error = raw.get("error")
    told = error.get("error_chain_str") or error.get("error") if isinstance(error, Mapping) else error
    condition = text(raw, "stop_condition")
    info = raw.get("info")
    info = info if isinstance(info, Mapping) else {}
    return Conversation(
        messages, tools_from(raw.get("tool_defs")), task_id=text(raw, "example_id"), task_type=text(info, "task_type"),
        env=f"verifiers/{text(raw, 'env_id') or text(raw, 'task') or 'results'}", model=text(raw, "model"),
        reward=number(raw, "reward"), stop=_stop(condition, bool(told), raw.get("is_truncated") is True),
        cut=raw.get("is_truncated") is True, error=str(told or ""),
    )  # fmt: skip


def _completion(raw: object) -> list[Any]:
    if not raw:
        raise BadRecord("its completion is empty")
    return messages_from(_chat(raw, "assistant"), "completion")


def _chat(raw: object, role: str) -> object:
    """Plain text, as completion models have it, as the one message that it is."""
    return [{"role": role, "content": raw}] if isinstance(raw, str) else raw


def _stop(condition: str, failed: bool, truncated: bool) -> StopReason:
    if failed:
        return StopReason.ENV_ERROR
    if "max_turns" in condition:
        return StopReason.MAX_TURNS
    return StopReason.TRUNCATED if truncated else StopReason.TERMINATED


register(Format("verifiers", "rollouts of verifiers (results.jsonl)", read))
