"""Importing: files of one format into a folder with a store, all of them or nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentdistill.durable import digest, replace
from agentdistill.errors import UserError
from agentdistill.exchange.conversation import BadRecord
from agentdistill.exchange.encode import Encoder
from agentdistill.exchange.registry import Reader, reader
from agentdistill.policies.load import load_tokenizer
from agentdistill.store import Store
from agentdistill.trajectory import IMPORTED, Trajectory

NAMED = 5
"""Bad records that a refusal names; `import.json` has all that were left out."""


@dataclass(slots=True)
class Imported:
    """What an import came to.

    Attributes:
        folder: with the store, batch `imported`, the tokenizer and `import.json`.
        skipped: a sentence for each record that was left out, by file and place.
    """

    folder: Path
    conversations: int = 0
    turns: int = 0
    tokens: int = 0
    successes: int = 0
    rewarded: int = 0
    skipped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        left = f"; {len(self.skipped)} bad ones were left out" if self.skipped else ""
        return (
            f"{self.conversations} conversations imported, {self.turns} turns, {self.tokens} tokens of the student's, "
            f"{self.successes} successes, {self.rewarded} with a reward{left}; stored in {self.folder / 'store'}"
        )


def import_files(
    files: Sequence[Path], form: str, out: Path, tokenizer: str, *, calls: str = "hermes", success_at: float = 1.0,
    skip_bad: bool = False,
) -> Imported:  # fmt: skip
    """Tokenise the conversations of some files and store them in a new folder.

    Args:
        form: name of the format.
        out: the folder; it must not exist, or be empty.
        tokenizer: model whose tokenizer and chat template are taken.
        calls: the format of tool calls in text.
        success_at: the reward from which on a conversation is a success, where its log does not say.
        skip_bad: leave bad records out, instead of refusing them all.

    Raises:
        UserError: for an unknown format or model, an unreadable file, or a bad record, by file and place; nothing is written.
    """
    read = reader(form)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"'{out}' is there already and holds something; choose another --out")
    for path in files:
        if not path.is_file():
            raise UserError(f"there is no file '{path}' to import")
    if not files:
        raise UserError("name at least one file to import")
    loaded = load_tokenizer(tokenizer)
    encoder, found = Encoder(loaded, calls, success_at), Imported(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        Store(scratch / "store").write_stream(IMPORTED, _encoded(files, read, encoder, found))
        if found.skipped and not skip_bad:
            raise UserError(_refusal(found.skipped))
        if not found.conversations:
            raise UserError(f"there is no conversation in {', '.join(map(repr, map(str, files)))}")
        loaded.save_pretrained(scratch / "tokenizer")
        record = {
            "format": form, "tokenizer": tokenizer, "call_format": calls, "success_at": success_at,
            "files": {str(path): digest(path) for path in files}, "conversations": found.conversations,
            "skipped": found.skipped,
        }  # fmt: skip
        replace(scratch / "import.json", json.dumps(record, indent=1).encode())
        scratch.chmod(0o755)
        os.replace(scratch, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return found


def _encoded(files: Sequence[Path], read: Reader, encoder: Encoder, found: Imported) -> Iterator[Trajectory]:
    """The trajectories one by one; what is bad is counted and named."""
    for path in files:
        for where, told in read(path):
            try:
                if isinstance(told, str):
                    raise BadRecord(told)
                trajectory = encoder.trajectory(told, found.conversations)
            except BadRecord as error:
                found.skipped.append(f"{path}, {where}: {' '.join(str(error).split())}")
                continue
            found.conversations += 1
            found.turns += len(trajectory.turns)
            found.tokens += trajectory.n_action_tokens
            found.successes += trajectory.success
            found.rewarded += trajectory.reward == trajectory.reward
            yield trajectory


def _refusal(bad: Sequence[str]) -> str:
    more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return f"{'; '.join(bad[:NAMED])}{more}; nothing was imported: mend the file, or leave such out with --skip-bad"
