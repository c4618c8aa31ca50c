from __future__ import annotations

from typing import Any

import pytest

from agentdistill.envs.webshop.catalogue import Catalogue
from agentdistill.envs.webshop.session import Session
from tests.envs.webshop import shop
from tests.needs import needs_webshop


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    needs_webshop()
    return shop.shop()


def visit(catalogue: Catalogue, number: int = 410, **options: Any) -> Session:
    return Session(catalogue, catalogue.goal("synthetic", number), number, **options)


def open_first(session: Session, query: str) -> None:
    session.act("search", query)
    session.act("click", next(name for name in session.clickables if name.startswith("b0")))


def test_next_goes_past_the_end_and_previous_comes_back(catalogue: Catalogue):
    session = visit(catalogue)
    session.act("search", "lamp")
    for _ in range(5):
        session.act("click", "next >")
    assert "Page 6 (Total results:" in session.text()
    assert list(session.clickables) == ["back to search", "< prev", "next >"]
    for _ in range(5):
        session.act("click", "< prev")
    assert list(session.clickables)[:2] == ["back to search", "next >"]
    assert len(session.clickables) == 12


def test_previous_on_a_product_keeps_the_results_page_and_forgets_options(catalogue: Catalogue):
    session = visit(catalogue)
    session.act("search", "rug")
    session.act("click", "next >")
    session.act("click", "< prev")
    session.act("click", "b07fkgqkz1")
    session.act("click", "taupe")
    assert session.options == {"color": "taupe"}
    session.act("click", "< prev")
    assert (session.page, session.doc, session.options) == (1, None, {})
    assert session.opened == {"B07FKGQKZ1"}
    session.act("click", "back to search")
    assert session.opened == set()
    assert session.has_search_bar


def test_a_search_works_on_every_page_and_clears_what_was_chosen(catalogue: Catalogue):
    session = visit(catalogue)
    open_first(session, "rug")
    session.act("search", "lamp")
    assert (session.page, session.doc, session.options) == (1, None, {})


def test_choosing_again_replaces_an_option(catalogue: Catalogue):
    session = visit(catalogue)
    session.act("search", "rug")
    session.act("click", "b07fkgqkz1")
    for value in ("taupe", "round", "blue"):
        session.act("click", value)
    assert session.options == {"color": "blue", "item shape": "round"}


@pytest.mark.parametrize(
    ("name", "argument"), [("click", "search"), ("search", ""), ("Click", "back to search"), ("click", "lamp"), ("look", "")]
)
def test_other_actions_change_nothing(catalogue: Catalogue, name: str, argument: str):
    session = visit(catalogue)
    before = session.text(), session.url
    assert session.act(name, argument) == 0.0
    assert (session.text(), session.url, session.done) == (*before, False)


def test_a_search_that_finds_nothing_has_an_empty_page(catalogue: Catalogue):
    session = visit(catalogue)
    session.act("search", "the zzzzzz of")
    assert session.text().endswith("Page 1 (Total results: 0) [SEP] Next >")


def test_commands_list_categories_queries_and_random_products(catalogue: Catalogue):
    session = visit(catalogue)
    product = session.goal.product
    session.act("search", f"<c> {product.category}")
    assert len(session.found) > 50
    assert {catalogue.product(doc).category for doc in session.found} == {product.category}
    session.act("search", f"<q> {product.query}")
    assert session.goal.doc in session.found
    assert {catalogue.product(doc).query for doc in session.found} == {product.query}
    for command in ("<c>", "<c> nowhere", "<q> nothing"):
        session.act("search", command)
        assert list(session.found) == []
    drawn = []
    for _ in range(2):
        session = visit(catalogue)
        session.act("search", "<r>")
        drawn.append(list(session.found))
    assert len(set(drawn[0])) == 50
    assert drawn[0] == drawn[1]


def test_the_attributes_page_is_there_where_it_is_asked_for(catalogue: Catalogue):
    session = visit(catalogue, show_attributes=True)
    open_first(session, "rug")
    session.act("click", "attributes")
    assert session.goal.product.category in session.text()
    session.act("click", "< prev")
    assert "buy now" in session.clickables


def test_addresses_mislead_previous_as_they_do_in_the_original(catalogue: Catalogue):
    session = visit(catalogue)
    open_first(session, "rug search_results")
    session.act("click", "< prev")
    assert session.page == 0
    assert session.text().endswith("Page 0 (Total results: 8) [SEP] Next >")
