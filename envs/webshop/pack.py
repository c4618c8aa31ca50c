"""Packing products into a folder that a `Catalogue` opens: one pass over them, in bounded memory."""

from __future__ import annotations

import json
import random
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from agentdistill.envs.webshop import arrays, goals
from agentdistill.envs.webshop.invert import Inverter
from agentdistill.envs.webshop.products import Product

FORMAT = 1
TABLE = "catalogue.json"


def pack(products: Iterable[tuple[Product, Sequence[str]]], folder: Path, seed: int = 0) -> dict[str, Any]:
    """Write products, prices, index and goals into an existing folder.

    Args:
        products: each with its terms, in the order of the search engine's documents.
        folder: where to; `arrays.TYPES` says what is written, beside `catalogue.json`.
        seed: of the prices drawn from ranges and of the goals' price limits, which the original draws without one.

    Returns:
        The content of `catalogue.json`.
    """
    rng = random.Random(seed)
    starts, prices, category, query = array("q", [0]), array("d"), array("H"), array("I")
    categories: dict[str, int] = {}
    queries: dict[str, int] = {}
    named = True
    with tempfile.TemporaryDirectory(dir=folder, prefix="runs-") as scratch:
        inverter = Inverter(Path(scratch))
        sources = {kind: (Path(scratch) / kind).open("w+", encoding="utf-8") for kind in goals.KINDS}
        with arrays.path_of(folder, "products").open("wb") as file, sources["synthetic"], sources["human"]:
            for doc, (product, terms) in enumerate(products):
                starts.append(starts[-1] + file.write(product.packed()))
                prices.append(product.price(rng))
                category.append(categories.setdefault(product.category, len(categories)))
                query.append(queries.setdefault(product.query, len(queries)))
                inverter.add(terms)
                named = named and product.nouns is not None
                for kind, out in sources.items():
                    out.writelines(json.dumps(source) + "\n" for source in goals.sources_of(product, doc, kind))
            after_prices = rng.getstate()
            for kind, out in sources.items():
                rng.setstate(after_prices)
                for name, values in goals.draw(_read(out), prices, rng, kind).items():
                    arrays.write(folder, f"{kind}_{name}", values)
        inverter.finish(folder)
    columns = {"product_starts": starts, "prices": prices, "category": category, "query": query}
    for name, column in columns.items():
        arrays.write(folder, name, column)
    table = {
        "format": FORMAT,
        "seed": seed,
        "terms": inverter.total,
        "nouns": named,
        "categories": list(categories),
        "queries": list(queries),
        "lengths": {name: _length(folder, name) for name in arrays.TYPES},
    }
    # Last, so that an interrupted packing leaves no folder that looks complete.
    (folder / TABLE).write_text(json.dumps(table), encoding="utf-8")
    return table


def _read(file: Any) -> Iterator[goals.Source]:
    file.seek(0)
    return (goals.Source(*json.loads(line)) for line in file)


def _length(folder: Path, name: str) -> int:
    return arrays.path_of(folder, name).stat().st_size // arrays.itemsize(name)
