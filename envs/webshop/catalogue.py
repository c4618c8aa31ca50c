"""The shop: its products, prices, search and goals, opened once for a process and shared by its environments."""

from __future__ import annotations

import functools
import json
import tempfile
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentdistill.datasets import remedy
from agentdistill.envs.data import read_text
from agentdistill.envs.webshop import arrays, goals, small
from agentdistill.envs.webshop.analysis import analyse
from agentdistill.envs.webshop.bm25 import Index
from agentdistill.envs.webshop.goals import Goal
from agentdistill.envs.webshop.nouns import require_tagger
from agentdistill.envs.webshop.pack import FORMAT, TABLE, pack
from agentdistill.envs.webshop.products import Product
from agentdistill.errors import UserError

FOUND = 50  # what a search finds at most
_KEPT_PRODUCTS = 8192
_KEPT_SEARCHES = 4096
_lock = threading.Lock()
_open: dict[Path, Catalogue] = {}


class Catalogue:
    """A packed folder (see `pack`).

    Args:
        folder: where it lies; the titles of its products must have been tagged, or spaCy be there to do it.
        map_files: leave the arrays on disk, and let the operating system keep what is used of them.

    Raises:
        UserError: when a file is missing or damaged, or spaCy is missing.
    """

    def __init__(self, folder: Path, map_files: bool = True) -> None:
        self.folder = folder
        table = _table(folder)
        self._arrays = {name: arrays.read(folder, name, table["lengths"][name], map_files) for name in arrays.TYPES}
        self._index = Index(self._arrays, table["terms"])
        if not table["nouns"]:
            require_tagger()
        self._categories: list[str] = table["categories"]
        self._queries: list[str] = table["queries"]
        self._sums = functools.lru_cache(maxsize=4)(lambda kind, first: np.cumsum(self.weights(kind)[first:]))
        self.product = functools.lru_cache(maxsize=_KEPT_PRODUCTS)(self._product)
        self.search = functools.lru_cache(maxsize=_KEPT_SEARCHES)(self._search)

    def __len__(self) -> int:
        return len(self._arrays["prices"])

    def price(self, doc: int) -> float:
        """What product `doc` costs."""
        return float(self._arrays["prices"][doc])

    def of_category(self, name: str) -> list[int]:
        """The products of a category such as `beauty`."""
        return self._with("category", self._categories, name)

    def of_query(self, text: str) -> list[int]:
        """The products that were found with a query when the shop was made."""
        return self._with("query", self._queries, text)

    def goal_count(self, kind: str) -> int:
        """How many goals of a kind (`synthetic` or `human`) there are."""
        return len(self._arrays[f"{kind}_product"])

    def goal(self, kind: str, number: int) -> Goal:
        """A goal by its place after the shuffle."""
        doc, choice, limit = (self._arrays[f"{kind}_{part}"][number] for part in ("product", "choice", "limit"))
        return goals.goal(self.product(int(doc)), int(doc), kind, int(choice), float(limit))

    def weights(self, kind: str) -> NDArray[np.float64]:
        """How likely the original takes each goal where none is asked for, up to a factor `[goals]`."""
        return self._arrays[f"{kind}_weight"]

    def draw_goal(self, kind: str, first: int, share: float) -> int:
        """The goal, not before number `first`, that lies at a share in [0, 1) of the sum of weights.

        Raises:
            UserError: when there is none.
        """
        sums = self._sums(kind, first)
        if not len(sums):
            raise UserError(f"WebShop has no {kind} goals in '{self.folder}'; import the official files with them")
        return first + min(int(np.searchsorted(sums, share * sums[-1], side="right")), len(sums) - 1)

    def _product(self, doc: int) -> Product:
        """Product number `doc`."""
        start, end = self._arrays["product_starts"][doc : doc + 2]
        try:
            return Product.unpacked(self._arrays["products"][start:end].tobytes())
        except (ValueError, zlib.error, TypeError) as error:
            path = arrays.path_of(self.folder, "products")
            raise UserError(
                f"product {doc} in the data file '{path}' is damaged ({error}); import the official WebShop files again"
            ) from error

    def _search(self, query: str) -> Sequence[int]:
        """The numbers of the best products, best first."""
        return tuple(self._index.search(analyse(query), FOUND).tolist())

    def _with(self, column: str, names: list[str], name: str) -> list[int]:
        if name not in names:
            return []
        found: list[int] = np.flatnonzero(self._arrays[column] == names.index(name)).tolist()
        return found


def open_catalogue(folder: Path) -> Catalogue:
    """The catalogue of a folder, which holds either the shipped 1,000 products or what `import_official` wrote.

    Raises:
        UserError: when it holds neither, or a file is missing or damaged.
    """
    folder = folder.resolve()
    with _lock:
        if folder not in _open:
            _open[folder] = _opened(folder)
        return _open[folder]


def forget() -> None:
    """Open shops anew when they are next asked for."""
    with _lock:
        _open.clear()


def _opened(folder: Path) -> Catalogue:
    if (folder / TABLE).is_file():
        return Catalogue(folder)
    if not (folder / small.FILE).is_file():
        raise UserError(
            f"'{folder}' holds neither '{small.FILE}' nor an imported catalogue ('{TABLE}'); point AGENTDISTILL_DATA, or the "
            f"option folder, to one, or {remedy('webshop')}"
        )
    with tempfile.TemporaryDirectory(prefix="agentdistill-webshop-") as packed:
        pack(small.shipped_products(folder), Path(packed))
        return Catalogue(Path(packed), map_files=False)


def _table(folder: Path) -> dict[str, Any]:
    path, again = folder / TABLE, "import the official WebShop files again"
    try:
        table: dict[str, Any] = json.loads(read_text(path))
        if table["format"] != FORMAT:
            raise UserError(f"'{path}' is of format {table['format']}, and this version reads format {FORMAT}; {again}")
        missing = [name for name in ("terms", "nouns", "categories", "queries", "lengths") if name not in table]
        missing += [name for name in arrays.TYPES if name not in table.get("lengths", ())]
        if missing:
            raise KeyError(*missing)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"the data file '{path}' is damaged ({type(error).__name__}: {error}); {again}") from error
    return table
