from __future__ import annotations

import json
import random

import pytest

from agentdistill.envs.webshop import goals
from agentdistill.envs.webshop.products import Product
from tests.envs.webshop import shop
from tests.needs import needs_data, needs_webshop


@pytest.fixture
def lamp() -> Product:
    return Product(
        asin="B000000001", title="Lamp", description="", bullets=[], price_tag="$5.0", pricing=[5.0],
        options={"size": ["s", "m", "l"], "color": ["red", "blue"]}, attributes=["solid wood"], category="garden",
        query="lamps", product_category="Home", instruction="Find me lamps with solid wood",
        instruction_attributes=["solid wood"],
        human=[
            {"instruction": "a lamp please.", "attributes": ["solid wood"], "options": ["red"]},
            {"instruction": "anything", "attributes": [], "options": []},
        ],
    )  # fmt: skip


def test_goals_and_their_order_equal_the_originals():
    needs_webshop()
    catalogue = shop.shop()
    recorded = shop.recorded("goals_6910_seed0.jsonl.gz")
    assert catalogue.goal_count("synthetic") == len(recorded) == 6910
    weights = catalogue.weights("synthetic")
    for number, row in enumerate(recorded):
        goal = catalogue.goal("synthetic", number)
        assert row == {
            "asin": goal.product.asin,
            "instruction_text": goal.instruction,
            "attributes": goal.attributes,
            "price_upper": goal.limit,
            "goal_options": goal.options,
            "weight": weights[number],
        }


def test_prices_equal_the_originals():
    needs_webshop()
    catalogue = shop.shop()
    prices = json.loads((needs_data("webshop") / "prices_seed0.json").read_text())
    assert {catalogue.product(doc).asin: catalogue.price(doc) for doc in range(len(catalogue))} == prices


def test_human_goals_are_the_thirteen_of_these_products():
    needs_webshop()
    catalogue = shop.shop()
    found = [catalogue.goal("human", number) for number in range(catalogue.goal_count("human"))]
    written = {
        (row["asin"], each["instruction"].strip("."), tuple(each["instruction_options"]))
        for row in shop.recorded("products_1000.jsonl.gz")
        for each in row.get("human_instructions") or []
    }
    assert len(found) == len(written) == 13
    assert {
        (goal.product.asin, goal.instruction.partition(", and price lower than ")[0], tuple(goal.options)) for goal in found
    } == written
    assert set(catalogue.weights("human")) == {1.0}


def test_every_combination_of_options_is_one_goal_and_all_share_a_limit(lamp: Product):
    (source,) = goals.sources_of(lamp, 0, "synthetic")
    assert source.choices == 6
    made = goals.draw([source], [5.0], random.Random(0), "synthetic")
    texts = [
        goals.goal(lamp, 0, "synthetic", int(choice), float(limit)).instruction
        for choice, limit in zip(made["choice"], made["limit"], strict=True)
    ]
    limit = int(made["limit"][0])
    assert limit in {20, 30, 40}
    assert set(texts) == {
        f"Find me lamps with solid wood with color: {color}, and size: {size}, and price lower than {limit}.00 dollars"
        for color in ("red", "blue")
        for size in "sml"
    }
    assert made["weight"].tolist() == pytest.approx([1 / 6] * 6)


def test_human_goals_need_attributes_and_have_options_without_names(lamp: Product):
    (source,) = goals.sources_of(lamp, 3, "human")
    goal = goals.goal(lamp, 3, "human", source.first, 30.0)
    assert (goal.instruction, goal.options) == ("a lamp please, and price lower than 30.00 dollars", ["red"])


def test_a_price_too_high_for_two_limits_has_none(lamp: Product):
    (source,) = goals.sources_of(lamp, 0, "synthetic")
    for price, expected in ((979.0, 990.0), (980.0, goals.NO_LIMIT), (1200.0, goals.NO_LIMIT)):
        made = goals.draw([source], [price], random.Random(0), "synthetic")
        assert set(made["limit"]) == {expected}
    assert "price" not in goals.goal(lamp, 0, "synthetic", 0, goals.NO_LIMIT).instruction


def test_options_without_values_leave_no_goal(lamp: Product):
    lamp.options["size"] = []
    made = goals.draw(goals.sources_of(lamp, 0, "synthetic"), [5.0], random.Random(0), "synthetic")
    assert [len(values) for values in made.values()] == [0, 0, 0, 0]
