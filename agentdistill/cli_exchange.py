"""The verbs `import` and `export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.conf import Positional


@dataclass(frozen=True)
class Import:
    """Store conversations from other programs' logs, tokenised once, for score, view, compare and imitation."""

    files: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="FILE...")]
    """Log files of one format."""
    format: str
    """chat, inspect or verifiers."""
    out: str
    """Folder for the result; it must not exist yet."""
    tokenizer: str
    """Model whose tokenizer and chat template are taken: a folder, hub id, or pip:package."""
    call_format: str = "hermes"
    """How tool calls and their results stand in the text: hermes, json, react or action."""
    success_at: float = 1.0
    """The reward from which on a conversation is a success, where its log does not say."""
    skip_bad: bool = False
    """Leave bad records out, by name, instead of refusing them all."""

    def run(self) -> None:
        """Do it."""
        from agentdistill import api

        api.import_trajectories(
            list(self.files), self.format, out=self.out, tokenizer=self.tokenizer, call_format=self.call_format,
            success_at=self.success_at, skip_bad=self.skip_bad,
        )  # fmt: skip


@dataclass(frozen=True)
class Export:
    """Write a run's stored trajectories for other programs to read."""

    run_folder: Annotated[Positional[str], tyro.conf.arg(name="run", metavar="RUN")]
    """Folder of a run, a rollout, an evaluation or an import."""
    format: str
    """parquet, jsonl, chat, sft or wandb."""
    out: str
    """File or folder for the result; it must not exist yet."""
    batch: str | None = None
    """One stored batch, such as iter-000001 (default: all)."""
    success_only: bool = False
    """Leave out what was no success."""
    table: str | None = None
    """With parquet and wandb: a row for each of the trajectories (the default), turns or tokens."""
    shape: str | None = None
    """With sft: messages (the default) or prompt-completion."""

    def run(self) -> None:
        """Do it."""
        from agentdistill import api

        api.export(
            self.run_folder, self.format, out=self.out, batch=self.batch, success_only=self.success_only, table=self.table,
            shape=self.shape,
        )  # fmt: skip
