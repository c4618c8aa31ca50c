"""The data set of ALFWorld: official folders become packed data, and walkthroughs are played to check it."""

from __future__ import annotations

import json
import lzma
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from agentdistill.datasets import Check, Contents, DataSet, Job, Made, Piece
from agentdistill.envs.alfworld import official, packed
from agentdistill.envs.alfworld.engine import Engine, borrow, give_back
from agentdistill.envs.alfworld.games import SPLITS, UNKNOWN_GOAL, Content, Game
from agentdistill.envs.alfworld.library import Library, forget
from agentdistill.envs.data import count_rows
from agentdistill.errors import UserError
from agentdistill.faults import described
from agentdistill.registration import needs_package

PUBLISHED = {"train": 3553, "valid_seen": 140, "valid_unseen": 134, "valid_train": 200}
_OPTIONAL = "valid_train"  # not every release has it
_TCOD = Piece(
    "TCOD's list of hard games as tcod_splits.json, an object with the ids under train_hard", "path/to/tcod_splits.json"
)


def _import(job: Job) -> Made:
    """The sources are one official folder, a `tcod_splits.json`, or both; the folder may hold that file too."""
    paths = [Path(source).expanduser() for source in job.sources]
    folders, lists = [path for path in paths if path.is_dir()], [path for path in paths if path.is_file()]
    if gone := [path for path in paths if not path.exists()]:
        raise UserError(f"there is no '{gone[0]}' to import ALFWorld from; name an official folder json_2.1.*")
    if len(folders) > 1 or len(lists) > 1 or (not folders and not job.adding):
        raise UserError(f"ALFWorld is imported from one folder json_2.1.* and at most one {packed.TCOD}, not from {len(paths)}")
    rows: dict[str, int | None] = {}
    origins = []
    for folder in folders:
        release = _release(folder)
        found, files = _pack(job, release)
        rows |= found
        origins.append((str(release), files))
        lists = lists or [path for path in (release / packed.TCOD,) if path.is_file()]
    for path in lists:
        shutil.copyfile(path, job.folder / packed.TCOD)
        _check_hard(job, path)
        rows[packed.TCOD] = None
        origins.append((str(path), (path,)))
    return Made(rows, tuple(origins))


def _release(folder: Path) -> Path:
    """The folder with the splits: the one named, or the newest `json_2.1.*` in it."""
    found = [folder] if official.is_official(folder) else sorted(folder.glob("json_2.1.*"), reverse=True)
    found = [each for each in found if official.is_official(each)]
    if not found:
        raise UserError(f"'{folder}' is no official ALFWorld folder: it has none of {', '.join(SPLITS)}; name json_2.1.*")
    return found[0]


def _pack(job: Job, release: Path) -> tuple[dict[str, int | None], tuple[Path, ...]]:
    """Write a file a split, and what all games share; the rows of the files, and the files that were read."""
    rows: dict[str, int | None] = {}
    files: list[Path] = []
    shared: Content | None = None
    for split, published in PUBLISHED.items():
        if not (release / split).is_dir():
            if split != _OPTIONAL and not job.partial:
                raise UserError(f"'{release}' has no {split}; download it again, or accept that with --partial")
            continue
        games = official.read_split(release, split)
        if len(games) < published and not job.partial:
            raise UserError(
                f"'{release / split}' holds {len(games):,} games and not {published:,}; download it again, or accept that with "
                "--partial"
            )
        with lzma.open(job.folder / f"{split}.jsonl.xz", "wt", encoding="utf-8") as out:
            for number, game in enumerate(games, 1):
                content = game.read()
                shared = shared or content
                _check_shared(game, content, shared)
                row = {"id": game.id, "goal": game.goal, "walkthrough": list(game.walkthrough), "pddl_problem": content.problem}
                out.write(json.dumps(row) + "\n")
                job.progress(f"games of {split}", number)
        rows[f"{split}.jsonl.xz"] = len(games)
        files += [release / game.id / official.GAME_FILE for game in games]
    if shared is None:
        raise UserError(f"'{release}' has none of {', '.join(PUBLISHED)}; download it again")
    for name, text in ((packed.DOMAIN, shared.domain), (packed.GRAMMAR, shared.grammar)):
        (job.folder / name).write_bytes(text.encode())
        rows[name] = None
    return rows, tuple(files)


def _check_shared(game: Game, content: Content, shared: Content) -> None:
    for what, own, of_all in (("domain", content.domain, shared.domain), ("grammar", content.grammar, shared.grammar)):
        if own != of_all or (what == "grammar" and own.count(UNKNOWN_GOAL) != 1):
            raise UserError(
                f"the game '{game.id}' has another {what} than the games before it, so it is of another release; download all "
                "splits of one again"
            )


def _check_hard(job: Job, path: Path) -> None:
    """Refuse a list of hard games that names one there is not."""
    try:
        library = Library(job.folder)
        if not job.partial:
            library.seeds("train_hard")
        else:
            packed.hard_ids(job.folder)
    except UserError as error:
        raise UserError(f"'{path}' does not fit: {error}") from error


def _count(folder: Path) -> Contents:
    tasks = {split: count_rows(path) for split in SPLITS if (path := folder / f"{split}.jsonl.xz").exists()}
    if not packed.is_packed(folder):
        library = Library(folder)  # an official folder may stand in its place
        tasks = {split: len(library.games(split)) for split in SPLITS if (library.folder / split).is_dir()}
        return Contents(tasks, tuple(split for split in PUBLISHED if split not in (*tasks, _OPTIONAL)))
    lacks = [name for name in (packed.DOMAIN, packed.GRAMMAR) if not (folder / name).exists()]
    for split, published in PUBLISHED.items():
        if split not in tasks and split != _OPTIONAL:
            lacks.append(f"the split {split}")
        elif tasks.get(split, published) < published:
            lacks.append(f"{published - tasks[split]:,} of {published:,} games of {split}")
    hard = () if (folder / packed.TCOD).exists() else (packed.TCOD,)
    if hard:
        lacks.append(f"TCOD's hard games ({packed.TCOD})")
    return Contents(tasks, tuple(lacks), hard if len(lacks) == 1 else ())


def _verify(folder: Path, sample: int | None) -> Iterator[Check]:
    library = Library(folder)
    place = folder if library.packed else library.folder
    engine = borrow()
    try:
        for split in SPLITS:
            if not (place / (f"{split}.jsonl.xz" if library.packed else split)).exists():
                continue
            games = library.games(split)  # reads every row
            chosen = games if sample is None else random.Random(split).sample(games, min(sample, len(games)))
            failed = tuple(f"{game.id}{why}" for game in chosen if (why := _fails(engine, game)) is not None)
            yield Check(f"{split} walkthroughs win", len(chosen), failed)
        if (place / packed.TCOD).exists() and (place / "train.jsonl.xz").exists():
            hard = packed.hard_ids(place)
            known = {game.id for game in library.games("train")}
            yield Check("of TCOD's hard games are there", len(hard), tuple(each for each in hard if each not in known))
    finally:
        give_back(engine)


def _fails(engine: Engine, game: Game) -> str | None:
    """None where the walkthrough wins, else what happened, as an appendix to the game's name."""
    try:
        engine.start(game)
        for command in game.walkthrough:
            engine.act(command)
    except Exception as error:  # a damaged game breaks the engine in many ways
        return f" ({described(error)})"
    return None if engine.won else ""


DATASET = DataSet(
    name="alfworld",
    about="ALFWorld's text games (Shridhar et al., arXiv 2010.03768), with TCOD's list of hard ones.",
    licence="ALFWorld and ALFRED are MIT; TCOD's list Apache-2.0.",
    download="json_2.1.1 of the ALFWorld project, with its games (its own command alfworld-download)",
    sources="path/to/json_2.1.1",
    importer=_import,
    count=_count,
    verifier=_verify,
    requires=(
        needs_package("alfworld", "pip install 'agentdistill[alfworld]'"),
        needs_package("fast_downward", "pip install 'agentdistill[alfworld]'"),
    ),
    pieces={packed.TCOD: _TCOD},
    forget=forget,
)
