from __future__ import annotations

from pathlib import Path

import pytest

from agentdistill.envs.webshop.analysis import analyse
from agentdistill.envs.webshop.small import shipped_products
from tests.needs import needs_data, needs_webshop


@pytest.fixture(scope="module", autouse=True)
def _real_parts() -> None:
    needs_webshop()


def test_terms_of_all_products_equal_lucenes():
    different = [
        product.asin
        for product, terms in shipped_products(Path(needs_data("webshop")))
        if analyse(product.searchable()) != terms
    ]
    assert different == []


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The dogs' and women's RUNNING shoes", ["dog", "women", "run", "shoe"]),
        ("1,000.50 x 2.5cm don't u.s.a", ["1,000.50", "x", "2.5cm", "don't", "u.s.a"]),
        ("size:8 frame:wood snake_case", ["size", "8", "frame:wood", "snake_cas"]),
        ("東京 カメラ ひも", ["東", "京", "カメラ", "ひ", "も"]),
        ("★ ❤️❤ 👨‍👩‍👧 🇺🇸", ["★", "❤️", "❤", "👨‍👩‍👧", "🇺🇸"]),
        ("", []),
        ("--- !", []),
        ("x" * 300, ["x" * 255, "x" * 45]),
    ],
)
def test_words_are_cut_at_unicodes_boundaries_and_stemmed(text: str, terms: list[str]):
    assert analyse(text) == terms


@pytest.mark.parametrize("text", ["_" * 60_000, "a" + "_" * 60_000, "_́" * 30_000, "_a1" * 20_000, "❤‍" * 30_000])
def test_long_runs_of_connectors_and_marks_are_read_in_linear_time(text: str):
    assert len(analyse(text)) < 600  # with a backtracking expression these would not end
