from __future__ import annotations

import dataclasses

import pytest

from agentdistill.envs.webshop.catalogue import Catalogue
from agentdistill.envs.webshop.reward import colour_of, reward, similarity, type_reward
from tests.envs.webshop import shop
from tests.needs import needs_webshop


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    needs_webshop()
    return shop.shop()


def test_all_recorded_rewards_and_their_parts_are_equal(catalogue: Catalogue):
    products = {product.asin: product for product in map(catalogue.product, range(len(catalogue)))}
    recorded = shop.recorded("golden_rewards.jsonl.gz")
    assert len(recorded) == 1500
    for row in recorded:
        goal = catalogue.goal("synthetic", row["goal_index"])
        assert reward(products[row["asin"]], goal, row["price"], row["options"]) == (row["reward"], row["info"])


def test_a_price_above_the_limit_costs_its_part(catalogue: Catalogue):
    goal = catalogue.goal("synthetic", 391)
    cheap, _ = reward(goal.product, goal, goal.limit, goal.options)
    dear, parts = reward(goal.product, goal, goal.limit + 0.01, goal.options)
    assert cheap == 1.0
    assert dear == pytest.approx(1 - parts["w_price"])


def test_options_of_human_goals_are_compared_by_their_colours(catalogue: Catalogue):
    number = next(n for n in range(13) if catalogue.goal("human", n).options)
    goal = dataclasses.replace(catalogue.goal("human", number), options=["navy blue"])
    for chosen, share in (("sky blue", 1.0), ("blue", 1.0), ("dark navy", 0.0), ("navy", 0.0)):
        assert reward(goal.product, goal, 0.0, {"color": chosen})[1]["r_option"] == share


def test_a_goal_without_options_has_no_such_part(catalogue: Catalogue):
    goal = dataclasses.replace(catalogue.goal("synthetic", 0), options={})
    assert {"r_option", "w_option"}.isdisjoint(reward(goal.product, goal, 0.0, {})[1])


def test_products_of_another_kind_are_worth_less(catalogue: Catalogue):
    goal = catalogue.goal("synthetic", 0)
    kind = {"query": "other", "product_category": "Elsewhere"}
    for nouns, worth in ((["nothing"], 0.0), (goal.product.nouns, 1.0)):
        product = dataclasses.replace(goal.product, nouns=nouns, **kind)
        assert type_reward(product, goal)["r_type"] == worth
    nameless = dataclasses.replace(goal, product=dataclasses.replace(goal.product, nouns=[]))
    assert type_reward(dataclasses.replace(goal.product, **kind), nameless)["title_score"] == 0.2
    assert type_reward(dataclasses.replace(goal.product, **kind), nameless)["r_type"] == 0.5


def test_a_colour_is_a_substring_of_a_text_but_a_member_of_a_pair():
    assert colour_of("rectangular") == "tan"
    assert colour_of("dark navy") == "dark"
    assert colour_of(("color", "navy stripes")) == ("color", "navy stripes")
    assert colour_of(("color", "navy")) == "navy"
    assert colour_of("plain") == "plain"


def test_texts_are_compared_without_case_punctuation_and_accented_letters():
    assert similarity("6.5", ("size", "6.5")) == 100
    assert similarity("Solid-Wood!", "solid wood") == 100
    assert similarity("café", "caf") == 100
    assert similarity("", "wood") == 0
    assert similarity("metal", "wood") < 50
