from __future__ import annotations

import json
import lzma
import shutil
from pathlib import Path

import pytest

from agentdistill.envs.alfworld.library import Library, library
from agentdistill.envs.alfworld.official import write_games
from agentdistill.envs.alfworld.tasks import TASK_TYPES, task_of, task_types
from agentdistill.errors import UserError
from tests.needs import needs_data


@pytest.fixture(scope="module", autouse=True)
def folder() -> Path:
    return needs_data("alfworld")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """Packed data without its large files, to be damaged."""
    for name in ("alfred.pddl", "alfred.twl2", "tcod_splits.json", "valid_unseen.jsonl.xz"):
        shutil.copy(folder / name, tmp_path)
    return tmp_path


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """An official folder with every 20th unseen game."""
    write_games(tmp_path / "json_2.1.1", library().games("valid_unseen")[::20])
    return tmp_path / "json_2.1.1"


def rewrite(path: Path, row: object) -> None:
    """Put a row in place of the second of a packed file."""
    lines = lzma.decompress(path.read_bytes()).decode().splitlines()[:3]
    lines[1] = row if isinstance(row, str) else json.dumps(row)
    path.write_bytes(lzma.compress("\n".join(lines).encode()))


def test_splits_have_their_published_sizes_and_are_disjoint() -> None:
    splits = {name: set(library().seeds(name)) for name in ("train", "valid_seen", "valid_unseen", "valid_train")}
    assert [len(seeds) for seeds in splits.values()] == [3553, 140, 134, 200]
    assert len(set.union(*splits.values())) == 3553 + 140 + 134 + 200
    assert set(library().seeds("valid")) == splits["valid_seen"]
    assert set(library().seeds("test")) == splits["valid_unseen"]
    assert len(set(library().seeds("train_hard")) & splits["train"]) == 121
    assert library().seeds("tcod_hard") == library().seeds("train_hard")


def test_the_unseen_games_are_of_the_published_types() -> None:
    counts = {name: len(library().seeds("valid_unseen", task_types(name))) for name in TASK_TYPES}
    assert list(counts.values()) == [24, 18, 31, 23, 21, 17]
    assert len(library().seeds("valid_unseen", task_types(["put", 2, "pick_two_obj_and_place"]))) == 24 + 18 + 17


def test_the_parameters_of_a_task_are_those_of_its_trajectory(folder: Path) -> None:
    known = json.loads((folder / "annotations_valid.json").read_text())["games"]
    assert len(known) == 474
    for game_id, said in known.items():
        assert (task_of(game_id).type, task_of(game_id).pddl_params()) == (said["task_type"], said["pddl_params"])


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ("putt", "no task type 'putt'; did you mean 'put'"),
        ([7], "no task type '7'"),
        ([True], "no task type 'True'"),
        ([], "'types' is empty"),
    ],
)
def test_unknown_task_types_are_refused(types: list[str | int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        task_types(types)


def test_an_official_folder_holds_the_games_it_was_written_from(official: Path) -> None:
    games = {game.id: game for game in library().games("valid_unseen")}
    for found in (Library(official), Library(official.parent)):
        assert [game.id for game in found.games("valid_unseen")] == list(games)[::20]
        for game in found.games("valid_unseen"):
            own = games[game.id]
            assert (game.goal, game.walkthrough, game.task) == (own.goal, own.walkthrough, own.task)
            assert game.read() == own.read()
            assert game.file() == own.file()


def test_an_official_folder_leaves_out_what_its_own_loader_leaves_out(official: Path) -> None:
    paths = sorted(official.glob("valid_unseen/*/*/game.tw-pddl"))
    for path, change in ((paths[0], {"solvable": False}), (paths[1], {"solvable": None})):
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    sliced = official / "valid_unseen" / "pick_and_place_simple-AppleSliced-None-Fridge-1" / "trial_T1"
    shutil.copytree(paths[2].parent, sliced)
    assert len(Library(official).games("valid_unseen")) == len(paths) - 2


def test_a_folder_without_games_is_refused(tmp_path: Path, official: Path) -> None:
    with pytest.raises(UserError, match=r"option 'data' names '.*/none', and there is no such folder"):
        library(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no ALFWorld games: neither packed data .* nor a folder json_2.1.\*"):
        library(str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"no game \(game.tw-pddl\) in '.*/train'; download it again \(alfworld-download\)"):
        Library(official).seeds("train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"solvable": true, "grammar": "Your task is to: rest.\\"", "pddl_problem": ""}', "has no 'walkthrough'"),
        ('{"solvable": true, "grammar": "", "walkthrough": []}', "names no task"),
    ],
)
def test_a_damaged_official_game_is_named(official: Path, content: str, message: str) -> None:
    path = next(official.glob("valid_unseen/*/*/game.tw-pddl"))
    path.write_text(content)
    with pytest.raises(UserError, match=rf"the game '{path}' .*{message}.*; download it again \(alfworld-download\)"):
        Library(official).games("valid_unseen")


def test_an_official_game_that_is_gone_when_it_is_played_is_named(official: Path) -> None:
    game = Library(official).games("valid_unseen")[0]
    path = official / game.id / "game.tw-pddl"
    path.unlink()
    with pytest.raises(UserError, match=f"the game '{path}' cannot be read: No such file"):
        game.read()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "valid_unseen/look_at_obj_in_light-Book-None-DeskLamp-1/t", "goal": "x"}, "it has no 'walkthrough'"),
        (
            {"id": "a", "goal": "x", "walkthrough": [], "pddl_problem": ""},
            "'a' is not split/type-Object-None-Target-scene/trial",
        ),
        ({"id": 3, "goal": "x", "walkthrough": [], "pddl_problem": ""}, "no attribute"),
        ([], "list indices"),
    ],
)
def test_a_damaged_row_of_packed_data_is_named_with_its_line(copy: Path, row: object, message: str) -> None:
    path = copy / "valid_unseen.jsonl.xz"
    rewrite(path, row)
    with pytest.raises(UserError, match=rf"'{path}' is damaged in line 2: .*{message}.*; import it again"):
        Library(copy).games("valid_unseen")


def test_cut_missing_and_empty_packed_files_are_named(copy: Path) -> None:
    path = copy / "valid_unseen.jsonl.xz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"'{path}' cannot be read: it is damaged .*; import it again"):
        Library(copy).games("valid_unseen")
    path.write_bytes(lzma.compress(b""))
    with pytest.raises(UserError, match=f"'{path}' holds no game"):
        Library(copy).games("valid_unseen")
    with pytest.raises(UserError, match=r"'.*/valid_seen.jsonl.xz' cannot be read: No such file .*; import it again"):
        Library(copy).games("valid_seen")
    (copy / "alfred.twl2").write_text("grammar")
    with pytest.raises(UserError, match=r"alfred.twl2' is damaged: it has no place for a goal"):
        Library(copy).games("valid_unseen")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"train_hard": [1]}'])
def test_a_damaged_list_of_hard_games_is_named(copy: Path, folder: Path, content: str) -> None:
    shutil.copy(folder / "valid_unseen.jsonl.xz", copy / "train.jsonl.xz")
    (copy / "tcod_splits.json").write_text(content)
    with pytest.raises(UserError, match=r"tcod_splits.json' is damaged .*; import it again"):
        Library(copy).seeds("train_hard")


def test_hard_games_that_the_data_lacks_are_counted(copy: Path, folder: Path) -> None:
    shutil.copy(folder / "valid_unseen.jsonl.xz", copy / "train.jsonl.xz")
    with pytest.raises(UserError, match=r"121 of TCOD's 121 hard games are not in .*, the first 'train/pick_two_obj"):
        Library(copy).seeds("train_hard")


def test_unknown_splits_and_seeds_are_refused() -> None:
    with pytest.raises(UserError, match="no split 'valid_unsen'; did you mean 'valid_unseen'"):
        library().seeds("valid_unsen")
    for seed in (3553, 10_140, 20_134, 40_000, -1):
        with pytest.raises(UserError, match=f"no game of seed {seed}"):
            library().game(seed)
