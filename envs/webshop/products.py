"""A product, and what the search engine reads of it."""

from __future__ import annotations

import json
import random
import zlib
from dataclasses import dataclass, field
from typing import Any

PRICELESS = 100.0  # what a product without a price costs


@dataclass(slots=True)
class Product:
    """One product of the shop.

    Attributes:
        bullets: the points of its features page.
        price_tag: the price as pages show it, which may be a range.
        pricing: none, one, or the two ends of the range.
        options: names (in lower case) with their values, as pages list them.
        attributes: what instructions may ask for.
        query: what it was found with when the shop was made, in lower case.
        product_category: a path of categories, divided by ` › `.
        instruction: of the synthetic goals, without options and price; None where there are none.
        human: instructions that people wrote, each with its `attributes` and `options`.
        nouns: the nouns of the title in lower case, or None where they are not known yet.
    """

    asin: str
    title: str
    description: str
    bullets: list[str]
    price_tag: str
    pricing: list[float]
    options: dict[str, list[str]]
    attributes: list[str]
    category: str
    query: str
    product_category: str
    instruction: str | None = None
    instruction_attributes: list[str] = field(default_factory=list)
    human: list[dict[str, Any]] = field(default_factory=list)
    nouns: list[str] | None = None

    def packed(self) -> bytes:
        """All of it as bytes."""
        return zlib.compress(json.dumps({name: getattr(self, name) for name in self.__slots__}, ensure_ascii=False).encode(), 1)

    @classmethod
    def unpacked(cls, data: bytes) -> Product:
        """The product of `packed`.

        Raises:
            ValueError, zlib.error, TypeError: when the bytes are none.
        """
        return cls(**json.loads(zlib.decompress(data)))

    def searchable(self) -> str:
        """The text that the search engine indexes."""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options.items())
        return " ".join((self.title, self.description, self.bullets[0] if self.bullets else "", options)).lower()

    def price(self, rng: random.Random) -> float:
        """What it costs: its price, a draw from its range, or `PRICELESS`."""
        if not self.pricing:
            return PRICELESS
        return self.pricing[0] if len(self.pricing) == 1 else rng.uniform(*self.pricing[:2])
