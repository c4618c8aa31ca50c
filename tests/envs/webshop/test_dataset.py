from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from agentdistill.datasets import data_import, data_list, data_verify, find
from agentdistill.envs.webshop import WebShopEnv
from agentdistill.envs.webshop.dataset import _EPISODES, _RANKINGS, _REWARDS
from agentdistill.errors import UserError
from tests.envs.webshop import shop
from tests.needs import needs_webshop


@pytest.fixture(scope="module")
def data() -> Path:
    return needs_webshop()


@pytest.fixture
def sources(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The original's three files, of two products; nothing is bought, so spaCy is not needed."""
    monkeypatch.setattr("agentdistill.envs.webshop.catalogue.require_tagger", lambda: None)
    asked = {"attributes": ["solid wood"], "instruction": "Find me lamps", "instruction_attributes": ["solid wood"]}
    human = [{"instruction": "a lamp", "instruction_attributes": ["solid wood"], "instruction_options": []}]
    return [
        shop.write(tmp_path / "items_shuffle.json", [shop.official_row("B000000001"), shop.official_row("B000000002")]),
        shop.write(tmp_path / "items_ins_v2.json", {"B000000001": asked}),
        shop.write(tmp_path / "items_human_ins.json", {"B000000001": human}),
    ]


def copied(data: Path, tmp_path: Path, *names: str) -> Path:
    """A data set with these files of the shipped one."""
    (folder := tmp_path / "copy" / "webshop").mkdir(parents=True)
    for name in names:
        shutil.copy(data / name, folder)
    return folder


def test_the_official_files_become_a_shop_with_a_manifest(sources: list[Path], tmp_path: Path) -> None:
    folder = data_import("webshop", *sources, to=tmp_path / "data")
    told = json.loads((folder / "manifest.json").read_text())
    assert told["tasks"] == {"products": 2, "train": 0, "valid": 0, "test": 2, "human goals": 1}
    assert [Path(each["path"]) for each in told["made_from"]] == sources
    assert told["files"]["prices.bin"]["rows"] == 2
    assert set(told["files"]) | {"manifest.json"} == {path.name for path in folder.iterdir()}
    assert WebShopEnv(folder=str(folder)).reset(seed=0)[1]["goal"].startswith("Find me lamps with color: ")
    info = next(each for each in data_list(at=tmp_path / "data") if each.name == "webshop")
    assert (info.state, info.manifest) == ("complete", True)


def test_options_are_the_importers(sources: list[Path], tmp_path: Path) -> None:
    shop.write(sources[0], [shop.official_row("B000000001", pricing="$5.00$700")])
    prices = []
    for seed in (0, 1):
        folder = data_import("webshop", *sources, to=tmp_path / str(seed), options={"seed": seed})
        prices.append((folder / "prices.bin").read_bytes())
    assert prices[0] != prices[1]


def test_wrong_sources_are_refused_and_leave_nothing(sources: list[Path], tmp_path: Path) -> None:
    for given, message in (
        (sources[:1], "in this order, not from 1 files"),
        (sources[1::-1], "items_ins_v2.json' cannot be read|items_shuffle.json' cannot be read"),
        ([sources[0], tmp_path / "none.json"], "none.json' cannot be read: No such file"),
        ([shop.write(tmp_path / "no.json", []), sources[1]], "holds no products"),
    ):
        with pytest.raises(UserError, match=message):
            data_import("webshop", *given, to=tmp_path / "data")
        assert not (tmp_path / "data").exists()


def test_recorded_episodes_rewards_and_rankings_are_played_and_a_changed_one_is_named(data: Path, tmp_path: Path) -> None:
    (verdict,) = data_verify("webshop", sample=3, say=lambda line: None)
    assert [str(check) for check in verdict.checks] == [
        "3 of 3 recorded episodes are equal", "3 of 3 recorded rewards are equal", "3 of 3 recorded rankings are equal"
    ]  # fmt: skip
    assert verdict.sound
    folder = copied(data, tmp_path, "products_1000.jsonl.gz")
    for name, change in {
        _EPISODES: lambda row: row["steps"][-1].update(reward=row["steps"][-1]["reward"] + 0.5),
        _REWARDS: lambda row: row.update(reward=2.0),
        _RANKINGS: lambda row: row["docs"].reverse(),
    }.items():
        rows = shop.recorded(name)[:3]
        change(rows[1])
        (folder / name).write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    (verdict,) = data_verify("webshop", at=folder.parent, say=lambda line: None)
    assert [check.failed for check in verdict.checks] == [("line 2",)] * 3


def test_without_recordings_the_expert_must_score_well(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied(data, tmp_path, "products_1000.jsonl.gz")
    goals: list[int | None] = []
    reset = WebShopEnv.reset

    def noted(env: WebShopEnv, *, seed: int | None = None) -> tuple[str, dict[str, object]]:
        goals.append(seed)
        return reset(env, seed=seed)

    monkeypatch.setattr(WebShopEnv, "reset", noted)
    for _ in range(2):
        (verdict,) = data_verify("webshop", at=folder.parent, sample=8, say=lambda line: None)
    assert verdict.sound
    assert goals[:8] == goals[8:]
    assert "8 of 8 goals played by the expert, mean score " in str(verdict)
    monkeypatch.setattr(WebShopEnv, "expert_action", lambda env: "click[buy now]")
    (verdict,) = data_verify("webshop", at=folder.parent, sample=8, say=lambda line: None)
    assert len(verdict.checks[0].failed) == 8


def test_a_folder_without_a_shop_and_a_damaged_table_are_told(data: Path, tmp_path: Path) -> None:
    (folder := tmp_path / "webshop").mkdir()
    assert find("webshop").count(folder).lacks == ("'products_1000.jsonl.gz' or an imported shop ('catalogue.json')",)
    (folder / "catalogue.json").write_text('{"lengths": {}}')
    with pytest.raises(UserError, match=r"catalogue.json' is damaged \(KeyError"):
        find("webshop").count(folder)
