"""What a run's numbers depend on beside its experiment file: versions, threads, and the user's own modules."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import platform
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from agentdistill.config import Experiment
from agentdistill.durable import digest
from agentdistill.registration import package_version, packages
from agentdistill.training.journal import write_atomic


def versions() -> dict[str, str]:
    """Versions of what decides a run's numbers."""
    names = ("agentdistill", "torch", "transformers", "tokenizers", "gymnasium", "numpy", "textworld")
    found: dict[str, str] = {"python": platform.python_version(), "machine": platform.platform()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return found | {"cpu": torch.backends.cpu.get_cpu_capability(), "cuda": cuda, "threads": str(torch.get_num_threads())}


def run_id(folder: Path) -> str:
    """The run's id, 12 hexadecimal digits: made at random once, and kept in `RUN/id`."""
    path = folder / "id"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if _ID.fullmatch(found := path.read_text(encoding="utf-8").strip()):
            return found
    made = secrets.token_hex(6)
    write_atomic(path, made + "\n")
    return made


_ID = re.compile("[0-9a-f]{12}")
_OTHER = "note: not all as in the run's earlier sessions, so numbers may differ from an uninterrupted run's"
_PACKAGE = "package of the environment"
_PLAYED_BY = ("agentdistill", "python", "gymnasium", "textworld")
_NAMED = 5  # files that a note names
_WHOLE = 1 << 20  # bytes up to which a model folder's file is read for its fingerprint


def inputs(config: Experiment) -> dict[str, str]:
    """Fingerprints of the user's own files that an experiment names: its module, its recorded demonstrations, its options'
    files, its models' folders.

    A file's is the SHA-256 of its contents, a folder's that of its files' names and sizes, with the contents of small files
    and the modification times of large ones, since weights are too many to be read.
    """
    named = {"env.module": config.env.module, "student.model": config.student.model}
    named["env.demonstrations"] = config.env.demonstrations
    named |= {f"{role}.model": section.model for role, section in config.teacher_roles.items()}
    if config.reference is not None:
        named["reference.model"] = config.reference.model
    named |= {f"env.options.{key}": value for key, value in config.env.options.items() if isinstance(value, str)}
    found = {}
    for name, value in named.items():
        path = Path(value)
        with contextlib.suppress(OSError, ValueError):  # text that is no path; what cannot be read is refused where it is used
            if path.is_file():
                found[f"{name} '{value}'"] = digest(path)[:12]
            elif value and name.endswith(".model") and path.is_dir():
                found[f"{name} '{value}'"] = _fingerprint(path)
    return found


def _fingerprint(folder: Path) -> str:
    summary = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file():
            about = file.stat()
            state = digest(file) if about.st_size <= _WHOLE else str(about.st_mtime_ns)
            summary.update(f"{file.name} {about.st_size} {state}\n".encode())
    return summary.hexdigest()[:12]


def record_session(folder: Path, config: Experiment, *, begun: bool) -> list[str]:
    """Set torch's threads, add this session to `meta.json`, and say what is other than in the sessions before.

    Sums are rounded in an order that depends on the number of threads. So a resumed run takes its first session's, unless the
    experiment names a number; and the number is set even where it is torch's own choice, because torch's libraries may
    otherwise use fewer.

    Args:
        config: the experiment.
        begun: whether there are earlier sessions whose results are used.

    Returns:
        Notes for the user, a sentence each.
    """
    path, notes = folder / "meta.json", list[str]()
    sessions = _sessions(path) if begun else []
    if begun and not sessions:
        notes.append(f"note: '{path}' is missing or damaged; whether versions are those the run began with is not known")
    own, threads = torch.get_num_threads(), config.engine.threads
    first = str(sessions[0].get("threads", "")) if sessions else ""
    used = threads or (int(first) if first.isdecimal() and int(first) else own)
    torch.set_num_threads(used)
    if used != own and not threads:
        notes.append(f"note: {used} threads, as when the run began (here it would be {own}), so that numbers stay the same")
    now = versions() | inputs(config) | {f"{_PACKAGE} '{name}'": was for name, was in packages(config.env.id).items()}
    notes += _differences(sessions, now)
    write_atomic(path, json.dumps({"sessions": [*sessions, {"started": _now(), **now}]}, indent=1))
    return notes


def record_environment(folder: Path, about: Mapping[str, Any]) -> list[str]:
    """Add what the environment says of itself, such as its sandbox's capabilities, to the present session in `meta.json`.

    Returns:
        A note, where it says `files` (fingerprints by name) and these are others than in a session before.
    """
    sessions = _sessions(folder / "meta.json")
    if not about or not sessions:
        return []
    before = [said["files"] for each in sessions[:-1] if isinstance(said := each.get("environment"), dict) and "files" in said]
    sessions[-1] = {**sessions[-1], "environment": dict(about)}
    write_atomic(folder / "meta.json", json.dumps({"sessions": sessions}, indent=1))
    now = about.get("files", {})
    other = sorted({name for was in before for name in {**was, **now} if was.get(name) != now.get(name)})
    if not other:
        return []
    more = f" and {len(other) - _NAMED} more" if len(other) > _NAMED else ""
    return [f"{_OTHER}: the environment's files {', '.join(map(repr, other[:_NAMED]))}{more}"]


def changed_since(folder: Path) -> list[str]:
    """What environments depend on and was another when the run's last session began, a phrase each, as far as it was noted."""
    then, now = (_sessions(folder / "meta.json") or [{}])[-1], versions()
    said = [f"{name} {then[name]} has become {now[name]}" for name in _PLAYED_BY if then.get(name, now[name]) != now[name]]
    for name, was in then.items():
        field, _, path = name.partition(" '")
        if field == _PACKAGE and (installed := package_version(path[:-1])) != was:
            said.append(f"{was} has become {installed}")
        if field.startswith("env.") and path.endswith("'"):
            with contextlib.suppress(OSError, ValueError):
                if digest(Path(path[:-1]))[:12] != was:
                    said.append(f"{name} has changed")
    return said


def _sessions(path: Path) -> list[dict[str, Any]]:
    """Earlier sessions, or none where the file cannot be read: a lost `meta.json` costs a comparison, not the run."""
    try:
        return [dict(session) for session in json.loads(path.read_text(encoding="utf-8"))["sessions"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _differences(sessions: list[dict[str, Any]], now: dict[str, str]) -> list[str]:
    other = {
        name: was
        for name, value in now.items()
        if (was := sorted({str(session.get(name, "unknown")) for session in sessions} - {value}))
    }
    if not other:
        return []
    listed = "; ".join(f"{name} was {' and '.join(was)}, is {now[name]}" for name, was in other.items())
    return [f"{_OTHER}: {listed}"]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
