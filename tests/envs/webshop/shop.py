"""What the tests of WebShop share: the original's recordings, and a small shop in its own files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from agentdistill.envs.data import read_rows
from agentdistill.envs.webshop.catalogue import Catalogue, open_catalogue
from tests.needs import needs_data


def recorded(name: str) -> list[dict[str, Any]]:
    """The rows of a file of the data."""
    return list(read_rows(needs_data("webshop") / name))


def shop() -> Catalogue:
    """The 1,000 products."""
    return open_catalogue(needs_data("webshop"))


def write(path: Path, value: Any) -> Path:
    """Write JSON, compressed where the name says so."""
    text = json.dumps(value)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def official_row(asin: str, **changes: Any) -> dict[str, Any]:
    """A product as the original's `items_shuffle.json` has it."""
    return {
        "asin": asin,
        "name": f"Red Lamp {asin}",
        "full_description": "A lamp.",
        "small_description": ["Bright light ", "Solid wood"],
        "pricing": "$1,005.50",
        "customization_options": {"Color": [{"value": " Red/Blue "}, {"value": "Green"}], "Style": None},
        "category": "garden",
        "query": " Table Lamps ",
        "product_category": "Home › Lamps",
        "images": ["x"],
    } | changes


def official_rows() -> list[dict[str, Any]]:
    """The 1,000 products in the original's form, as far as they can be turned back."""
    rows = []
    for row in recorded("products_1000.jsonl.gz"):
        priced = row["Price"] != "$100.0" or row["pricing"] != [100.0]
        rows.append(
            {key: row[key] for key in ("asin", "name", "full_description", "small_description", "category", "query")}
            | {
                "product_category": row["product_category"],
                "pricing": "".join(f"${price}" for price in row["pricing"]) if priced else None,
                "customization_options": {
                    name: [{"value": value} for value in values] for name, values in row["options"].items()
                },
            }
        )
    return rows
