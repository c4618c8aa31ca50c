"""`data import`: the user's own downloads become a data set, whole or not at all."""

from __future__ import annotations

import ctypes
import fcntl
import inspect
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agentdistill import durable
from agentdistill.datasets import manifest
from agentdistill.datasets.record import Contents, DataSet, Job, Made
from agentdistill.datasets.registry import VARIABLE, find, root
from agentdistill.errors import UserError, nearest
from agentdistill.modules import import_module

_EXCHANGE, _HERE = 2, -100  # RENAME_EXCHANGE and AT_FDCWD of Linux


def data_import(
    name: str, *sources: str | Path, to: str | Path | None = None, force: bool = False, add: bool = False,
    partial: bool = False, options: Mapping[str, Any] | None = None, module: str = "",
    say: Callable[[str], None] | None = None,
) -> Path:  # fmt: skip
    """Turn official downloads into the data set NAME, with a `manifest.json`. Nothing is fetched from anywhere.

    It is written under another name beside its place and renamed when it is complete: a source that is damaged or wrong, and
    an import that is stopped, leave what was there before.

    Args:
        name: see `data_list`.
        sources: files or folders that the user downloaded; `data_list` says which.
        to: the folder below which it goes, instead of the one that `AGENTDISTILL_DATA` names.
        force: replace what is there.
        add: keep what is there and add to it; a file that is there already is replaced with `force` only.
        partial: accept fewer tasks than the official set has.
        options: keyword arguments of the data set's importer.
        module: Python module, or `.py` file, to import first, which registers the data set.
        say: takes a line that tells what was made; the terminal by default.

    Returns:
        The folder.

    Raises:
        UserError: when a source is missing, damaged or not what it should be, or the data set is there already.
    """
    if module:
        import_module(module)
    data_set = find(name)
    _check_options(data_set, options or {})
    if not sources:
        raise UserError(f"name what '{name}' is to be imported from: {data_set.remedy()}")
    top = root(to)
    if top is None:
        raise UserError(f"set {VARIABLE} to the folder where data sets are to lie, or name one with --to")
    target = top / name
    before = target.exists() or target.is_symlink()
    if before and not (force or add):
        raise UserError(
            f"'{target}' is there already; --force replaces it once the new one is complete, --add adds files to it"
        )
    adding = add and target.is_dir()
    try:
        with _scratch(top, name) as part:
            if adding:
                shutil.copytree(target, part, dirs_exist_ok=True)
            old = manifest.read(part) if adding else None
            kept = {path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file()}
            job = Job(tuple(map(str, sources)), part, partial, adding, _progress)
            made: Made = data_set.importer(job, **(options or {}))
            if not force and (twice := sorted(kept & set(made.rows))):
                raise UserError(f"'{target / twice[0]}' is there already; --add --force replaces it")
            contents = data_set.count(part)
            if not any(contents.tasks.values()):
                raise UserError(_empty(name, sources, contents))
            told = manifest.describe(part, data_set, made, contents, old)
            durable.replace(part / manifest.FILE, told.model_dump_json(indent=1, exclude_none=True).encode())
            for path in part.rglob("*"):
                durable.sync(path)
            _put(part, target)
        durable.sync(top)
    except OSError as error:
        raise UserError(f"'{target}' cannot be written: {error.strerror or error}") from error
    data_set.forget()
    tasks = ", ".join(f"{split} {count:,}" for split, count in contents.tasks.items())
    (say or print)(f"{name}: {tasks}; in {target}" + "".join(f"; without {each}" for each in contents.lacks))
    return target


def _empty(name: str, sources: Sequence[str | Path], contents: Contents) -> str:
    named = ", ".join(f"'{source}'" for source in sources)
    if not contents.lacks:
        return f"there is no task of '{name}' in {named}; name a file that holds some"
    return f"there is no task of '{name}' in {named} alone: it lacks {', '.join(contents.lacks)}; name what is lacking as well"


def _check_options(data_set: DataSet, options: Mapping[str, Any]) -> None:
    taken = list(inspect.signature(data_set.importer).parameters)[1:]
    for key in options:
        if key not in taken:
            raise UserError(f"importing '{data_set.name}' has no option '{key}'{nearest(str(key), taken)}")


@contextmanager
def _scratch(top: Path, name: str) -> Iterator[Path]:
    """A new folder beside the data set's place, gone at the end; what killed imports left there goes too.

    Folders that are made to hold it, and hold nothing afterwards, go with it.
    """
    made = [each for each in (top, *top.parents) if not each.exists()]
    part = top / f".{name}-part-{uuid.uuid4().hex[:12]}"
    try:
        top.mkdir(parents=True, exist_ok=True)
        for left in top.glob(f".{name}-part-*"):
            with suppress(OSError), _held(left):
                shutil.rmtree(left)
        part.mkdir()
        with _held(part):
            yield part
    finally:
        if part.is_symlink() or part.is_file():  # a link that stood in the place: what it points to is not ours
            part.unlink()
        elif part.exists():
            shutil.rmtree(part, ignore_errors=True)
        with suppress(OSError):  # the first that holds something ends it
            for each in made:
                each.rmdir()


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """A lock on a folder, which the system drops when its process ends; raises OSError where another process has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _put(part: Path, target: Path) -> None:
    """Give a folder its name; what had it before gets the other, in one step where the file system can do that."""
    if not (target.exists() or target.is_symlink()):
        part.rename(target)
        return
    with suppress(AttributeError, OSError):
        if ctypes.CDLL(None).renameat2(_HERE, os.fsencode(part), _HERE, os.fsencode(target), _EXCHANGE) == 0:
            return
    aside = part.with_name(f"{part.name}-old")
    target.rename(aside)
    try:
        part.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    aside.rename(part)


def _progress(what: str, done: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done:,} {what} ", end="", file=sys.stderr, flush=True)
