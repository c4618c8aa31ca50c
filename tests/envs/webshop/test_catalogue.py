from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from agentdistill.envs.webshop import WebShopEnv, arrays, small
from agentdistill.envs.webshop.catalogue import Catalogue, open_catalogue
from agentdistill.envs.webshop.pack import TABLE, pack
from agentdistill.errors import UserError
from tests.envs.webshop import shop
from tests.needs import needs_data, needs_webshop


@pytest.fixture(scope="module", autouse=True)
def _real_parts() -> None:
    needs_webshop()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack((each for each, _ in zip(small.shipped_products(needs_data("webshop")), range(40), strict=False)), folder)
    return folder


@pytest.fixture
def packed(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_a_folder_is_opened_once_and_shared_by_environments(tmp_path: Path):
    (link := tmp_path / "link").symlink_to(needs_data("webshop"))
    assert WebShopEnv().catalogue is WebShopEnv(folder=str(link)).catalogue is shop.shop()


def test_a_mapped_catalogue_equals_one_in_memory(packed: Path):
    mapped, loaded = Catalogue(packed), Catalogue(packed, map_files=False)
    assert len(mapped) == 40
    for query in ("lamp", "wood table", "zzz"):
        assert mapped.search(query) == loaded.search(query)
    assert [mapped.product(doc) for doc in range(40)] == [loaded.product(doc) for doc in range(40)]
    assert mapped.goal_count("human") == loaded.goal_count("human")


@pytest.mark.parametrize("name", ["products", "docs", "synthetic_limit"])
def test_a_missing_or_short_file_is_named_with_what_to_do(packed: Path, name: str):
    path = arrays.path_of(packed, name)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"{name}\.bin' has [\d,]+ bytes and not [\d,]+; import the official WebShop files"):
        open_catalogue(packed)
    path.unlink()
    with pytest.raises(UserError, match=rf"{name}\.bin' is missing; import"):
        open_catalogue(packed)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "lengths": 3, "terms": 1}', "\xff"])
def test_a_damaged_table_is_named(packed: Path, text: str):
    (packed / TABLE).write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"catalogue\.json'"):
        open_catalogue(packed)


def test_another_format_is_refused(packed: Path):
    table = json.loads((packed / TABLE).read_text()) | {"format": 99}
    (packed / TABLE).write_text(json.dumps(table))
    with pytest.raises(UserError, match="format 99, and this version reads format 1"):
        open_catalogue(packed)


def test_a_damaged_product_is_named(packed: Path):
    path = arrays.path_of(packed, "products")
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(UserError, match=r"product 7 in the data file '.*products\.bin' is damaged"):
        open_catalogue(packed).product(7)


def test_a_folder_with_neither_form_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"neither 'products_1000\.jsonl\.gz' nor an imported catalogue"):
        open_catalogue(tmp_path)
    with pytest.raises(UserError, match="neither"):
        open_catalogue(tmp_path / "none")


def test_a_shipped_file_without_products_or_with_a_price_that_is_none_is_named(tmp_path: Path):
    for lines, what in (("", "holds no products; get the file again"), (None, r"is damaged \(ValueError: .*'x'\); get")):
        if lines is None:
            with gzip.open(needs_data("webshop") / small.FILE, "rt", encoding="utf-8") as file:
                lines = json.dumps({**json.loads(next(file)), "pricing": ["x"]})
        (tmp_path / small.FILE).write_bytes(gzip.compress(lines.encode()))
        with pytest.raises(UserError, match=rf"products_1000\.jsonl\.gz' {what}"):
            open_catalogue(tmp_path)


@pytest.mark.parametrize("line", ["{}", "[1]", '{"asin": "B0"', "3"])
def test_a_damaged_shipped_file_is_named(tmp_path: Path, line: str):
    (tmp_path / small.FILE).write_bytes(gzip.compress(line.encode()))
    with pytest.raises(UserError, match=r"products_1000\.jsonl\.gz' (is damaged|cannot be read)"):
        open_catalogue(tmp_path)


def test_a_cut_shipped_file_is_named(tmp_path: Path):
    data = (needs_data("webshop") / small.FILE).read_bytes()
    (tmp_path / small.FILE).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"products_1000\.jsonl\.gz' cannot be read: it is damaged"):
        open_catalogue(tmp_path)


def test_goals_are_drawn_by_weight_and_never_before_the_first():
    catalogue = shop.shop()
    weights = catalogue.weights("synthetic")
    assert catalogue.draw_goal("synthetic", 1500, 0.0) == 1500
    assert catalogue.draw_goal("synthetic", 1500, 1.0 - 1e-12) == 6909
    share = (weights[1500] + weights[1501] / 2) / weights[1500:].sum()
    assert catalogue.draw_goal("synthetic", 1500, float(share)) == 1501
