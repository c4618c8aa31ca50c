from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentdistill.envs.webshop import WebShopEnv, import_official, nouns
from agentdistill.envs.webshop.catalogue import Catalogue, open_catalogue
from agentdistill.errors import UserError
from tests.envs.webshop import shop
from tests.needs import needs_data, needs_webshop

HUMAN = [{"instruction": "a red lamp.", "instruction_attributes": ["solid wood"], "instruction_options": ["red"], "worker": 1}]


@pytest.fixture(autouse=True)
def _real_parts() -> None:
    needs_webshop()


@pytest.fixture
def tagger(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data's titles have their nouns; where products have none, spaCy must be there, which tests do without."""
    monkeypatch.setattr("agentdistill.envs.webshop.catalogue.require_tagger", lambda: None)


def imported(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Catalogue:
    """Import products, with attributes and a human instruction for some."""
    attributes = {
        "B000000001": {"attributes": ["solid wood"], "instruction": "Find me lamps", "instruction_attributes": ["solid wood"]},
        "B000000002": {"attributes": []},
        "B000000009": {"attributes": ["of no product"]},
    }
    import_official(
        shop.write(folder / "items_shuffle.json", rows),
        shop.write(folder / "items_ins_v2.json", attributes),
        shop.write(folder / "items_human_ins.json", {"B000000001": HUMAN}),
        folder / "shop",
        **options,
    )
    return open_catalogue(folder / "shop")


@pytest.mark.usefixtures("tagger")
def test_the_small_set_in_the_originals_form_becomes_the_same_shop(tmp_path: Path):
    small = shop.shop()
    rows = shop.official_rows()
    import_official(
        shop.write(tmp_path / "items_shuffle.json.gz", rows),
        needs_data("webshop") / "items_ins_v2_1000.json",
        None,
        tmp_path / "shop",
    )
    catalogue = open_catalogue(tmp_path / "shop")
    assert len(catalogue) == len(small) == 1000
    assert catalogue.goal_count("human") == 0
    for doc in range(1000):
        product, expected = catalogue.product(doc), small.product(doc)
        assert (product.asin, product.options, product.attributes) == (expected.asin, expected.options, expected.attributes)
        assert (product.price_tag, catalogue.price(doc)) == (expected.price_tag, small.price(doc))
    assert catalogue.goal_count("synthetic") == 6910
    for number in range(0, 6910, 7):
        assert catalogue.goal("synthetic", number).instruction == small.goal("synthetic", number).instruction
    for row in shop.recorded("lucene_rankings.jsonl.gz")[::5]:
        assert list(catalogue.search(row["query"].lower())) == row["docs"]
    env = WebShopEnv(folder=str(tmp_path / "shop"))
    assert env.reset(seed=410)[0] == WebShopEnv().reset(seed=410)[0]


@pytest.mark.usefixtures("tagger")
def test_rows_become_products_as_in_the_original(tmp_path: Path):
    rows = [
        shop.official_row("nan"),
        shop.official_row("B000000001"),
        shop.official_row("B000000001", name="again"),
        shop.official_row("B00000000TOOLONG"),
        shop.official_row("B000000002", pricing="$5.00$7.5", small_description="one text", customization_options=None),
        shop.official_row("B000000003", pricing="", full_description=None),
    ]
    catalogue = imported(tmp_path, rows)
    assert len(catalogue) == 3
    lamp, plain, bare = map(catalogue.product, range(3))
    assert (lamp.title, lamp.price_tag, lamp.pricing, lamp.query) == ("Red Lamp B000000001", "$1005.5", [1005.5], "table lamps")
    assert lamp.options == {"color": ["red | blue", "green"]}
    assert lamp.searchable() == "red lamp b000000001 a lamp. bright light  color: red | blue, green"
    assert (plain.price_tag, plain.pricing, plain.bullets) == ("$5.0 to $7.5", [5.0, 7.5], ["one text"])
    assert 5.0 <= catalogue.price(1) <= 7.5
    assert (plain.attributes, bare.attributes) == ([], ["DUMMY_ATTR"])
    assert (bare.price_tag, bare.description) == ("$100.0", "")
    assert catalogue.goal_count("synthetic") == 2
    goal = catalogue.goal("human", 0)
    assert (goal.instruction, goal.attributes, goal.options) == ("a red lamp", ["solid wood"], ["red"])
    assert sorted(catalogue.search("lamp")) == [0, 1, 2]


@pytest.mark.usefixtures("tagger")
def test_another_seed_draws_other_prices(tmp_path: Path):
    prices = []
    for seed in (0, 0, 1):
        (folder := tmp_path / str(len(prices))).mkdir()
        rows = [shop.official_row("B000000001", pricing="$5.00$700")]
        prices.append(imported(folder, rows, seed=seed).price(0))
    assert prices[0] == prices[1] != prices[2]


@pytest.mark.parametrize("key", ["asin", "name", "small_description", "query", "customization_options"])
def test_a_damaged_product_is_named_and_nothing_is_left(tmp_path: Path, key: str):
    row = shop.official_row("B000000002")
    del row[key]
    with pytest.raises(UserError, match=rf"product 2 of the file '.*items_shuffle\.json' is damaged .*{key}"):
        imported(tmp_path, [shop.official_row("B000000001"), row])
    assert {path.name for path in tmp_path.iterdir()} == {"items_shuffle.json", "items_ins_v2.json", "items_human_ins.json"}


@pytest.mark.parametrize("price", ["12", "$1.2.3", "$"])
def test_a_price_that_is_none_is_damage(tmp_path: Path, price: str):
    with pytest.raises(UserError, match="product 1 of the file"):
        imported(tmp_path, [shop.official_row("B000000001", pricing=price)])


def test_an_empty_file_and_an_existing_folder_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="holds no products"):
        imported(tmp_path, [])
    (tmp_path / "shop").mkdir()
    with pytest.raises(UserError, match="exists already"):
        imported(tmp_path, [shop.official_row("B000000001")])


def test_a_folder_without_nouns_needs_spacy_when_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nouns, "MODEL", "no_such_model")
    with pytest.raises(UserError, match="nouns, which WebShop's reward needs, are not in the data; pip install spacy"):
        imported(tmp_path, [shop.official_row("B000000001")])
    with pytest.raises(UserError, match="pip install spacy"):
        import_official("none", "none", None, tmp_path / "other", nouns=True)
