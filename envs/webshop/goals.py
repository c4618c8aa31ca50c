"""Goals: instructions for what to buy, made from the products as the original makes them.

A synthetic goal is a product's instruction with one combination of its options; a human one was written by a person. To both
a price limit is added. They are drawn and shuffled once, when a catalogue is packed; a goal is then three numbers: its
product, which combination or instruction, and the limit.
"""

from __future__ import annotations

import itertools
import math
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentdistill.envs.webshop.products import Product

KINDS = ("synthetic", "human")
SHUFFLE_SEED = 233
NO_LIMIT = 1_000_000.0
_LIMITS = [10.0 * tens for tens in range(1, 100)]


@dataclass(frozen=True, slots=True)
class Goal:
    """What to buy.

    Attributes:
        product: the product that it was made from, number `doc` in the catalogue.
        options: names and values (synthetic), or values alone (human).
        limit: the price must not be above it.
    """

    product: Product
    doc: int
    instruction: str
    attributes: list[str]
    options: dict[str, str] | list[str]
    limit: float

    def option_values(self) -> list[str]:
        """The values to choose."""
        return list(self.options.values()) if isinstance(self.options, dict) else list(self.options)


class Source(NamedTuple):
    """What the goals of one product (synthetic) or one person's instruction (human) have in common.

    Attributes:
        first: number of the first choice; `choices` are numbered from there.
        attributes: that the goals ask for.
    """

    doc: int
    first: int
    choices: int
    attributes: list[str]


def sources_of(product: Product, doc: int, kind: str) -> Iterator[Source]:
    """Where the product's goals of a kind come from."""
    if kind == "human":
        for number, written in enumerate(product.human):
            if written["attributes"]:
                yield Source(doc, number, 1, written["attributes"])
    elif product.instruction is not None and product.instruction_attributes:
        yield Source(doc, 0, math.prod(map(len, product.options.values())), product.instruction_attributes)


def draw(sources: Iterable[Source], prices: Any, rng: random.Random, kind: str) -> dict[str, NDArray[Any]]:
    """Draw the limits and shuffle; arrays of equal length `product`, `choice`, `limit`, `weight`."""
    docs, firsts, numbers, limits = array("i"), array("i"), array("q"), array("f")
    asked: Counter[str] = Counter()
    attributes: list[tuple[str, ...]] = []
    kept: dict[tuple[str, ...], tuple[str, ...]] = {}  # few lists, many products
    for source in sources:
        docs.append(source.doc)
        firsts.append(source.first)
        numbers.append(source.choices)
        limits.append(_limit(prices[source.doc], rng))
        names = tuple(source.attributes)
        attributes.append(kept.setdefault(names, names))
        for name in names:
            asked[name] += source.choices
    # How rare the attributes are, on average; human goals weigh the same.
    weights = [1.0 if kind == "human" else sum(1.0 / max(asked[name], 1) for name in each) / len(each) for each in attributes]
    order = array("i", range(sum(numbers)))
    random.Random(SHUFFLE_SEED).shuffle(order)
    shuffled = np.asarray(order, dtype=np.int64)
    of_source = np.repeat(np.arange(len(docs)), numbers)
    starts = np.concatenate(([0], np.cumsum(np.asarray(numbers, dtype=np.int64))))[:-1]
    source_of = of_source[shuffled]
    return {
        "product": np.asarray(docs)[source_of],
        "choice": np.asarray(firsts)[source_of] + (shuffled - starts[source_of]),
        "limit": np.asarray(limits)[source_of],
        "weight": np.asarray(weights, dtype=np.float64)[source_of],
    }


def goal(product: Product, doc: int, kind: str, choice: int, limit: float) -> Goal:
    """The goal of a product, a choice and a limit."""
    ending = f", and price lower than {limit:.2f} dollars" if limit < NO_LIMIT else ""
    if kind == "human":
        written = product.human[choice]
        text = written["instruction"].strip(".") + ending
        return Goal(product, doc, text, written["attributes"], written["options"], limit)
    names = sorted(product.options)
    values = _combination([product.options[name] for name in names], choice)
    options = dict(zip(names, values, strict=True))
    asked = ", and ".join(f"{name}: {value}" for name, value in options.items())
    text = f"{product.instruction}{' with ' if asked else ''}{asked}{ending}"
    return Goal(product, doc, text, product.instruction_attributes, options, limit)


def _limit(price: float, rng: random.Random) -> float:
    """The larger of two of the next four multiples of ten above a price, or none at all above 980."""
    above = list(itertools.islice((limit for limit in _LIMITS if limit > price), 4))
    return max(rng.sample(above, 2)) if len(above) >= 2 else NO_LIMIT


def _combination(lists: list[list[str]], number: int) -> list[str]:
    """Member `number` of the lists' product, the last list changing fastest."""
    values = []
    for each in reversed(lists):
        number, place = divmod(number, len(each))
        values.append(each[place])
    return values[::-1]
