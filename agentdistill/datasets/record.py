"""What a data set is to the verb `data`: words for people, and three functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agentdistill.registration import Requirement


@dataclass(frozen=True, slots=True)
class Job:
    """What an importer is given.

    Attributes:
        sources: the user's own files or folders, as they were named.
        folder: where to write; nobody else reads it before the import is complete.
        partial: accept fewer tasks than the official set has.
        adding: `folder` holds what was imported before, and stays complete without the new files.
        progress: takes what is counted, and how many there are so far.
    """

    sources: tuple[str, ...]
    folder: Path
    partial: bool = False
    adding: bool = False
    progress: Callable[[str, int], None] = lambda what, done: None


@dataclass(frozen=True, slots=True)
class Made:
    """What an importer did.

    Attributes:
        rows: the files it wrote, by name in the folder, with their rows where they have any.
        origins: what they were made from: a source as it was named, and its files.
    """

    rows: Mapping[str, int | None]
    origins: tuple[tuple[str, tuple[Path, ...]], ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a folder holds, as far as that is told without reading all of it.

    Attributes:
        tasks: number of tasks by split.
        lacks: what the whole set has and the folder has not, in a few words each.
        files: names of the files that were absent, of those that can be imported on their own.
    """

    tasks: Mapping[str, int]
    lacks: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried on a data set.

    Attributes:
        what: completes `12 of 12 …`.
        tried: how many.
        failed: names of those that failed, with the reason where there is one.
    """

    what: str
    tried: int
    failed: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.tried - len(self.failed):,} of {self.tried:,} {self.what}"


@dataclass(frozen=True, slots=True)
class Piece:
    """A file of a data set that can be imported on its own: where it comes from, in words, and how it is named as a source."""

    download: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """A data set. Nothing is ever downloaded: users bring the official files.

    Attributes:
        name: of its folder below the one that `AGENTDISTILL_DATA` names.
        about: what it is, whose, and how large where it is whole.
        licence: in words.
        download: where the official files come from, in words that follow `download`.
        sources: what `data import NAME` is given.
        importer: writes the packed form; keyword arguments after the job are its options.
        count: looks into a folder. Raises `UserError` where a file is damaged.
        verifier: reads all of a folder and plays so many tasks of each kind, or all (None), always the same ones.
        requires: what the verifier needs of the machine.
        pieces: the files that can be imported on their own.
        forget: drops what this process keeps in memory of the set.
        version: of the packed form.
    """

    name: str
    about: str
    licence: str
    download: str
    sources: str
    importer: Callable[..., Made]
    count: Callable[[Path], Contents]
    verifier: Callable[[Path, int | None], Iterable[Check]]
    requires: tuple[Requirement, ...] = ()
    pieces: Mapping[str, Piece] = field(default_factory=dict)
    forget: Callable[[], object] = lambda: None
    version: int = 1

    def remedy(self, file: str = "") -> str:
        """How to get the set, or one file of it: where to download, and the one command."""
        if piece := self.pieces.get(file):
            return f"download {piece.download}, then run: agentdistill data import {self.name} {piece.source} --add"
        return f"download {self.download}, then run: agentdistill data import {self.name} {self.sources}"
