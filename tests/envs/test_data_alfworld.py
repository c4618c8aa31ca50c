"""ALFWorld's data set: official folders in, the same games out, and walkthroughs that must win."""

from __future__ import annotations

import json
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentdistill.datasets import data_import, data_verify, find
from agentdistill.envs.alfworld.games import Game
from agentdistill.envs.alfworld.library import Library, library
from agentdistill.envs.alfworld.official import write_games
from agentdistill.errors import UserError
from tests.needs import needs_alfworld

SPLITS = {"train": 3553, "valid_seen": 140, "valid_unseen": 134}


@pytest.fixture(scope="module")
def packed() -> Path:
    return needs_alfworld()


@pytest.fixture(scope="module")
def games(packed: Path) -> dict[str, list[Game]]:
    """Three games of each split."""
    return {split: list(library().games(split)[: count : count // 3]) for split, count in SPLITS.items()}


@pytest.fixture
def official(games: dict[str, list[Game]], tmp_path: Path) -> Path:
    """They in an official folder."""
    for each in games.values():
        write_games(tmp_path / "download" / "json_2.1.1", each)
    return tmp_path / "download" / "json_2.1.1"


@pytest.fixture
def imported(official: Path, tmp_path: Path) -> Path:
    return data_import("alfworld", official, to=tmp_path / "data", partial=True)


def unpacked(path: Path) -> list[bytes]:
    """The lines of a packed file."""
    return lzma.decompress(path.read_bytes()).splitlines()


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit an official game."""
    row = json.loads(path.read_text())
    edit(row)
    path.write_text(json.dumps(row))


def test_packed_games_in_an_official_folder_become_the_same_packed_games(
    packed: Path, games: dict[str, list[Game]], imported: Path
) -> None:
    for name in ("alfred.pddl", "alfred.twl2"):
        assert (imported / name).read_bytes() == (packed / name).read_bytes()
    back = Library(imported)
    for split, own in games.items():
        assert [game.file() for game in back.games(split)] == [game.file() for game in own]
        wanted = {game.id for game in own}
        rows = [row for row in unpacked(packed / f"{split}.jsonl.xz") if json.loads(row)["id"] in wanted]
        assert unpacked(imported / f"{split}.jsonl.xz") == rows


def test_the_manifest_counts_games_and_digests_the_files_they_came_from(official: Path, imported: Path, tmp_path: Path) -> None:
    told = json.loads((imported / "manifest.json").read_text())
    assert told["tasks"] == {split: len(list((official / split).iterdir())) for split in SPLITS}
    assert told["files"]["train.jsonl.xz"]["rows"] == told["tasks"]["train"]
    (origin,) = told["made_from"]
    assert (origin["path"], origin["files"]) == (str(official), sum(told["tasks"].values()))
    change(next(official.glob("train/*/*/game.tw-pddl")), lambda row: row["walkthrough"].append("look"))
    data_import("alfworld", official.parent, to=tmp_path / "again", partial=True)
    again = json.loads((tmp_path / "again" / "alfworld" / "manifest.json").read_text())
    assert again["made_from"][0]["path"] == str(official)
    assert again["made_from"][0]["sha256"] != origin["sha256"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_text("{"), r"the game '.*' is damaged .*; download it again"),
        (lambda path: change(path, lambda row: row.pop("pddl_domain")), "it has no 'pddl_domain'"),
        (
            lambda path: change(path, lambda row: row.update(pddl_domain="(define (domain alfred))")),
            r"the game 'valid_seen/.*' has another domain than the games before it",
        ),
        (
            lambda path: change(path, lambda row: row.update(grammar=row["grammar"].replace("move", "put"))),
            "has another grammar than the games before it",
        ),
        (lambda path: shutil.rmtree(path.parents[2]), "has no valid_seen; download it again, or accept that with --partial"),
    ],
)
def test_a_damaged_or_mixed_download_is_refused_and_leaves_nothing(
    official: Path, tmp_path: Path, damage: Callable[[Path], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"train": 3, "valid_seen": 3, "valid_unseen": 3, "valid_train": 0}
    monkeypatch.setattr("agentdistill.envs.alfworld.dataset.PUBLISHED", sizes)
    damage(next(official.glob("valid_seen/*/*/game.tw-pddl")))
    with pytest.raises(UserError, match=message):
        data_import("alfworld", official, to=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_download_with_too_few_games_is_refused_unless_that_is_wanted(official: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train' holds 4 games and not 3,553; .* or accept that with --partial"):
        data_import("alfworld", official, to=tmp_path / "data")
    said: list[str] = []
    folder = data_import("alfworld", official, to=tmp_path / "data", partial=True, say=said.append)
    assert "without 3,549 of 3,553 games of train; without 136 of 140 games of valid_seen" in said[0]
    assert find("alfworld").count(folder).files == ()


@pytest.mark.parametrize("sources", [[], ["json_2.1.1", "json_2.1.1"], ["nowhere"], ["empty"], ["tcod_splits.json"]])
def test_sources_that_are_no_official_folder_are_refused(official: Path, tmp_path: Path, sources: list[str]) -> None:
    (official.parent / "empty").mkdir()
    (official.parent / "tcod_splits.json").write_text('{"train_hard": []}')
    message = r"json_2\.1\.|is no official ALFWorld folder"
    with pytest.raises(UserError, match=message):
        data_import("alfworld", *(official.parent / name for name in sources), to=tmp_path / "data", partial=True)
    assert not (tmp_path / "data" / "alfworld").exists()


def test_tcods_list_comes_with_the_folder_or_is_added_later(
    games: dict[str, list[Game]], official: Path, imported: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tcod_splits.json"
    path.write_text(json.dumps({"train_hard": [games["train"][1].id]}))
    assert "TCOD's hard games (tcod_splits.json)" in find("alfworld").count(imported).lacks
    data_import("alfworld", path, to=tmp_path / "data", add=True)
    assert Library(imported).seeds("train_hard") == [1]
    shutil.copy(path, official)
    data_import("alfworld", official, to=tmp_path / "data", partial=True, force=True)
    assert Library(imported).seeds("train_hard") == [1]
    for content, message in (('{"train_hard": ["train/x"]}', "1 of TCOD's 1 hard games are not in"), ("{}", "is damaged")):
        path.write_text(content)
        with pytest.raises(UserError, match=f"'{path}' does not fit: .*{message}"):
            data_import("alfworld", path, to=tmp_path / "data", add=True, force=True)


def test_verify_plays_and_names_the_walkthrough_that_does_not_win(imported: Path, tmp_path: Path) -> None:
    said: list[str] = []
    (verdict,) = data_verify("alfworld", sample=1, at=tmp_path / "data", say=said.append)
    assert verdict.sound
    assert [str(check) for check in verdict.checks] == [f"1 of 1 {split} walkthroughs win" for split in SPLITS]
    rows = [json.loads(row) for row in unpacked(imported / "valid_seen.jsonl.xz")]
    rows[1]["walkthrough"] = rows[1]["walkthrough"][:-1]
    rows[2]["pddl_problem"] = "(define"
    (imported / "valid_seen.jsonl.xz").write_bytes(lzma.compress("\n".join(map(json.dumps, rows)).encode()))
    (imported / "manifest.json").unlink()
    for name in ("train", "valid_unseen"):
        (imported / f"{name}.jsonl.xz").unlink()
    (verdict,) = data_verify("alfworld", all=True, at=tmp_path / "data", say=said.append)
    (check,) = verdict.checks
    assert check.tried == len(rows)
    assert check.failed[0] == rows[1]["id"]
    assert check.failed[1].startswith(f"{rows[2]['id']} (")
    assert "no manifest" in str(verdict)


def test_verify_chooses_the_same_games_each_time(imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentdistill.envs.alfworld.dataset._fails", lambda engine, game: "")
    chosen = {str(data_verify("alfworld", sample=2, at=tmp_path / "data", say=lambda line: None)) for _ in range(3)}
    assert len(chosen) == 1
    assert len(list(imported.iterdir())) == 6


def test_an_official_folder_in_the_data_sets_place_is_counted_and_played(official: Path, tmp_path: Path) -> None:
    official.parent.rename(tmp_path / "alfworld")
    assert dict(find("alfworld").count(tmp_path / "alfworld").tasks) == {"train": 4, "valid_seen": 4, "valid_unseen": 4}
    (verdict,) = data_verify("alfworld", sample=1, at=tmp_path, say=lambda line: None)
    assert [str(check) for check in verdict.checks] == [f"1 of 1 {split} walkthroughs win" for split in SPLITS]
