"""TensorBoard: event files in `RUN/tensorboard`.

They are written anew from `metrics.jsonl` by every session of a run, so a resumed run has no step twice. Numbers are stored as
doubles, since TensorBoard's plain scalars have 32 bits.
"""

from __future__ import annotations

import shutil

from agentdistill.loggers.entry import Entry
from agentdistill.loggers.registry import RunInfo


class TensorBoardView:
    """An open event file. A tag is a number's name, a step its iteration or, for sft, its optimizer step."""

    start = 0

    def __init__(self, run: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))

    def write(self, entry: Entry) -> None:
        """See `Backend`."""
        for name, value in entry.values.items():
            self._writer.add_scalar(name, value, entry.at, new_style=True, double_precision=True)
        self._writer.flush()

    def close(self) -> None:
        """See `Backend`."""
        self._writer.close()


def open_view(run: RunInfo) -> TensorBoardView:
    """The view of a run."""
    return TensorBoardView(run)
