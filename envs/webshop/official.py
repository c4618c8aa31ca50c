"""Importing the original's own files, of which the products have 1.18 million rows, in bounded memory."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from agentdistill.envs.jsonstream import elements, items
from agentdistill.envs.webshop.analysis import analyse
from agentdistill.envs.webshop.nouns import require_tagger, tagged
from agentdistill.envs.webshop.pack import pack
from agentdistill.envs.webshop.products import PRICELESS, Product
from agentdistill.envs.webshop.small import human_instructions
from agentdistill.errors import UserError

_NO_ATTRIBUTE = "DUMMY_ATTR"  # the original's word where a product has none
_LONGEST_ASIN = 10
_BATCH = 512


def import_official(
    products: str | Path,
    attributes: str | Path,
    human: str | Path | None,
    folder: str | Path,
    *,
    seed: int = 0,
    nouns: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Turn the original's files into a folder for the option `folder` of `agentdistill/WebShop-v0`; without a manifest.

    Args:
        products: `items_shuffle.json`.
        attributes: `items_ins_v2.json`: attributes and the synthetic instructions.
        human: `items_human_ins.json`, or None to have synthetic goals only.
        folder: must not exist; it is complete once it does. All files may be compressed (`.gz`).
        seed: of what the original draws without one (see `pack`).
        nouns: tag the titles now, with spaCy (about 600 a second). Otherwise the titles of bought products are tagged when
            they are bought, and spaCy is needed then.
        progress: called now and then with the number of products read.

    Returns:
        The content of the folder's `catalogue.json`.

    Raises:
        UserError: when the folder exists, or a file is missing or damaged.
    """
    target = Path(folder)
    if target.exists():
        raise UserError(f"the folder '{target}' exists already; import into a new one or remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{target.name}-part-"))
    try:
        table = write_official(products, attributes, human, part, seed=seed, nouns=nouns, progress=progress)
        part.chmod(0o755)
        part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return table


def write_official(
    products: str | Path, attributes: str | Path, human: str | Path | None, folder: Path, *,
    seed: int = 0, nouns: bool = False, progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """As `import_official`, into a folder that exists."""
    if nouns:
        require_tagger()
    with closing(_Joined(folder / "joined.sqlite")) as joined:
        joined.fill("attributes", Path(attributes))
        if human is not None:
            joined.fill("human", Path(human))
        read = joined.products(Path(products), progress)
        table = pack(_with_terms(_with_nouns(read) if nouns else read), folder, seed)
    (folder / "joined.sqlite").unlink()
    if not table["lengths"]["prices"]:
        raise UserError(f"the file '{products}' holds no products; download it again")
    return table


class _Joined:
    """The files that are looked up by product, in a table on disk."""

    def __init__(self, path: Path) -> None:
        self._base = sqlite3.connect(path, isolation_level=None)
        self._base.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE attributes (asin TEXT PRIMARY KEY, row TEXT) WITHOUT ROWID;"
            "CREATE TABLE human (asin TEXT PRIMARY KEY, row TEXT) WITHOUT ROWID;"
            "CREATE TABLE seen (asin TEXT PRIMARY KEY) WITHOUT ROWID; BEGIN;"
        )

    def fill(self, table: str, path: Path) -> None:
        rows = ((asin, json.dumps(row)) for asin, row in items(path))
        self._base.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", rows)

    def products(self, path: Path, progress: Callable[[int], None] | None) -> Iterator[Product]:
        """The products that the original keeps: the first of each asin that is one."""
        for number, raw in enumerate(elements(path), 1):
            try:
                asin = str(raw["asin"])
                known = self._base.execute("INSERT OR IGNORE INTO seen VALUES (?)", (asin,)).rowcount == 0
                if known or asin == "nan" or len(asin) > _LONGEST_ASIN:
                    continue
                yield _product(raw, self._row("attributes", asin) or {}, self._row("human", asin) or [])
            except (KeyError, TypeError, AttributeError, InvalidOperation, IndexError) as error:
                raise UserError(
                    f"product {number} of the file '{path}' is damaged ({type(error).__name__}: {error}); download it again"
                ) from error
            if progress is not None and number % 1000 == 0:
                progress(number)

    def close(self) -> None:
        self._base.close()

    def _row(self, table: str, asin: str) -> Any:
        found = self._base.execute(f"SELECT row FROM {table} WHERE asin = ?", (asin,)).fetchone()
        return None if found is None else json.loads(found[0])


def _product(raw: dict[str, Any], attributes: dict[str, Any], human: list[dict[str, Any]]) -> Product:
    pricing, price_tag = _pricing(raw.get("pricing"))
    bullets = raw["small_description"]
    return Product(
        asin=raw["asin"],
        title=raw["name"],
        description=raw["full_description"] or "",
        bullets=[str(each) for each in (bullets if isinstance(bullets, list) else [bullets])],
        price_tag=price_tag,
        pricing=pricing,
        options=_options(raw["customization_options"]),
        attributes=attributes.get("attributes", [_NO_ATTRIBUTE]),
        category=raw["category"],
        query=raw["query"].lower().strip(),
        product_category=raw["product_category"],
        instruction=attributes.get("instruction"),
        instruction_attributes=attributes.get("instruction_attributes") or [],
        human=human_instructions(human),
    )


def _pricing(text: str | None) -> tuple[list[float], str]:
    """The prices in a text such as `$5.00$7.00`, at most two, and how pages show them."""
    if not text:
        return [PRICELESS], f"${PRICELESS}"
    prices = [float(Decimal(re.sub(r"[^\d.]", "", each))) for each in text.split("$")[1:]]
    if len(prices) == 1:
        return prices, f"${prices[0]}"
    return prices[:2], f"${prices[0]} to ${prices[1]}"


def _options(raw: dict[str, Any] | None) -> dict[str, list[str]]:
    return {
        name.lower(): [each["value"].strip().replace("/", " | ").lower() for each in contents]
        for name, contents in (raw or {}).items()
        if contents is not None
    }


def _with_terms(products: Iterator[Product]) -> Iterator[tuple[Product, Sequence[str]]]:
    for product in products:
        yield product, analyse(product.searchable())


def _with_nouns(products: Iterator[Product]) -> Iterator[Product]:
    batch: list[Product] = []
    for product in products:
        batch.append(product)
        if len(batch) == _BATCH:
            yield from _named(batch)
            batch = []
    yield from _named(batch)


def _named(batch: list[Product]) -> Iterator[Product]:
    for product, nouns in zip(batch, tagged(product.title for product in batch), strict=True):
        product.nouns = nouns
        yield product
