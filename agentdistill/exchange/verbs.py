"""What a notebook calls: `ad.import_trajectories` and `ad.export`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from agentdistill.evaluation import open_run, others_remain
from agentdistill.exchange.exporting import export_store
from agentdistill.exchange.importing import Imported, import_files
from agentdistill.runs import named_folder

Say = Callable[[str], None] | None


def import_trajectories(
    files: str | Path | Sequence[str | Path], format: str, *, out: str | Path, tokenizer: str, call_format: str = "hermes",
    success_at: float = 1.0, skip_bad: bool = False, say: Say = None,
) -> Imported:  # fmt: skip
    """Store conversations that were had elsewhere, tokenised once, as batch `imported` of a new folder.

        ad.import_trajectories("logs/run.eval", "inspect", out="runs/theirs", tokenizer="runs/quickstart/final")

    They can be scored, looked at, compared, exported and imitated. Their log-probs are NaN, and no environment answers for
    them, so they are not replayed, branched from, judged by `what_if`, or trained on as if the student had sampled them.

    Args:
        files: one file, or several.
        format: of the files: `chat`, `inspect` or `verifiers` (see docs/export.md).
        out: folder that does not exist yet.
        tokenizer: model whose tokenizer and chat template are taken: the student's, or the scorer's.
        call_format: how tool calls and their results stand in the text.
        success_at: the reward from which on a conversation is a success, where its log does not say.
        skip_bad: leave bad records out, by name, instead of refusing them all.
        say: takes a line on what was imported, and one for each record left out; the terminal by default.

    Raises:
        UserError: for an unknown format or model, an unreadable file, a bad record (by file and line), or an `out` that holds
            something; nothing is written then.
    """
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(each) for each in files]
    tell = say or print
    found = import_files(
        paths, format, named_folder(out), tokenizer, calls=call_format, success_at=success_at, skip_bad=skip_bad
    )  # fmt: skip
    for each in found.skipped:
        tell(f"left out: {each}")
    tell(str(found))
    return found


def export(
    run: str | Path, format: str, *, out: str | Path, batch: str | None = None, success_only: bool = False,
    table: str | None = None, shape: str | None = None, say: Say = None,
) -> int:  # fmt: skip
    """Write stored trajectories for other programs to read; the number of rows.

        ad.export("runs/quickstart", "sft", out="sft.jsonl", success_only=True, shape="prompt-completion")

    Args:
        run: folder of a run, a rollout, an evaluation or an import.
        format: `parquet`, `jsonl`, `chat`, `sft` or `wandb` (see docs/export.md).
        out: file or folder that does not exist yet.
        batch: one stored batch, such as `iter-000001`; all by default.
        success_only: leave out what was no success.
        table: for `parquet` and `wandb`: a row for each of the `trajectories`, `turns` or `tokens`.
        shape: for `sft`: `messages` or `prompt-completion`.
        say: takes a line on what was written; the terminal by default.

    Raises:
        UserError: for an unknown run, batch, format or option, a package that is missing, or an `out` that is there already.
    """
    folder, path = Path(run), named_folder(out)
    options = {"table": table, "shape": shape}
    with others_remain(store := open_run(folder), batch):
        n = export_store(
            store, folder.resolve().name, format, path, [batch] if batch is not None else [],
            success_only=success_only, options=options,
        )  # fmt: skip
    (say or print)(f"{n} rows written to {path}")
    return n
