"""The 1,000-product set as it is shipped: JSON lines with derived fields."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentdistill.envs.data import read_rows
from agentdistill.envs.webshop.products import Product
from agentdistill.errors import UserError

FILE = "products_1000.jsonl.gz"


def shipped_products(folder: Path) -> Iterator[tuple[Product, list[str]]]:
    """The products of a folder with their terms.

    Raises:
        UserError: when the file is missing or damaged.
    """
    number = 0
    for number, row in enumerate(read_rows(folder / FILE), 1):
        try:
            yield _product(row), row["lucene_tokens"].split()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"product {number} of the data file '{folder / FILE}' is damaged ({type(error).__name__}: {error}); "
                "get the file again"
            ) from error
    if not number:
        raise UserError(f"the data file '{folder / FILE}' holds no products; get the file again")


def _product(row: dict[str, Any]) -> Product:
    bullets = row["small_description"]
    return Product(
        asin=row["asin"],
        title=row["name"],
        description=row["full_description"],
        bullets=bullets if isinstance(bullets, list) else [bullets],
        price_tag=row["Price"],
        pricing=[float(price) for price in row["pricing"]],
        options={name: list(values) for name, values in row["options"].items()},
        attributes=row["Attributes"],
        category=row["category"],
        query=row["query"],
        product_category=row["product_category"],
        instruction=row["instruction_text"],
        instruction_attributes=row["instruction_attributes"] or [],
        human=human_instructions(row.get("human_instructions") or []),
        nouns=row["title_nouns"],
    )


def human_instructions(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What goals need of the instructions that people wrote for one product."""
    return [
        {
            "instruction": row["instruction"],
            "attributes": row["instruction_attributes"],
            "options": row["instruction_options"],
        }
        for row in rows
    ]
