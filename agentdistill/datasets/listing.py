"""`data list`: which data sets there are, where each is expected, and how to get what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agentdistill.datasets import manifest
from agentdistill.datasets.record import Contents, DataSet
from agentdistill.datasets.registry import VARIABLE, find, names, root
from agentdistill.errors import UserError
from agentdistill.faults import described
from agentdistill.modules import import_module


@dataclass(frozen=True, slots=True)
class DataInfo:
    """What is known of a data set on this machine.

    Attributes:
        folder: where it is expected; None where `AGENTDISTILL_DATA` is not set.
        state: `complete`, `incomplete`, `damaged` or `missing`; `unknown` where the data set cannot be loaded.
        bytes: of its files.
        tasks: number of tasks by split.
        manifest: whether there is one.
        about, licence: what it is, and whose, in words.
        notes: what is not as it should be.
        remedies: for each part that is missing, the words and the one command that get it.
    """

    name: str
    folder: Path | None
    state: str
    about: str
    licence: str
    bytes: int = 0
    tasks: Mapping[str, int] = field(default_factory=dict)
    manifest: bool = False
    notes: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = str(self.folder) if self.folder else f"${VARIABLE}/{self.name} ({VARIABLE} is not set)"
        size = f", {self.bytes / 1e6:,.1f} MB{'' if self.manifest else ', no manifest'}" if self.bytes else ""
        lines = [f"{self.name}: {self.state}{size}, {where}"]
        if self.about:
            lines.append(f"  {self.about} Licence: {self.licence}")
        if self.tasks:
            lines.append("  tasks: " + ", ".join(f"{split} {count:,}" for split, count in self.tasks.items()))
        return "\n".join([*lines, *(f"  {note}" for note in self.notes), *(f"  to get it: {each}" for each in self.remedies)])


def data_list(*, at: str | Path | None = None, module: str = "") -> list[DataInfo]:
    """Every registered data set. Its `str` is what the command line prints.

    Args:
        at: the folder below which they lie, instead of the one that `AGENTDISTILL_DATA` names.
        module: Python module, or `.py` file, to import first, which registers data sets.
    """
    if module:
        import_module(module)
    top = root(at)
    return [_listed(name, None if top is None else top / name) for name in names()]


def _listed(name: str, folder: Path | None) -> DataInfo:
    try:
        return _info(find(name), folder)
    except UserError as error:
        return DataInfo(name, folder, "unknown", "", "", notes=(str(error),))


def _info(data_set: DataSet, folder: Path | None) -> DataInfo:
    words = (data_set.about, data_set.licence)
    if folder is None or not folder.is_dir():
        return DataInfo(data_set.name, folder, "missing", *words, remedies=(data_set.remedy(),))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    try:
        told = manifest.read(folder)
        contents = data_set.count(folder)
        notes = tuple(manifest.differences(folder, told, checksums=False)) if told else ()
    except Exception as error:  # what counts may be anybody's
        told, contents, notes = None, Contents({}), (described(error),)
    damage = bool(notes)
    notes += tuple(f"lacks {each}" for each in contents.lacks)
    state = "damaged" if damage else "incomplete" if contents.lacks else "complete"
    remedies = tuple(data_set.remedy(file) for file in contents.files) or ((data_set.remedy(),) if notes else ())
    has = (folder / manifest.FILE).exists()
    return DataInfo(data_set.name, folder, state, *words, size, contents.tasks, has, notes, remedies)
