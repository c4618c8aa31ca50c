"""Importing a large WebShop: time, memory and search time on products made for the purpose.

The products, in the original's file format, are mixtures of the 1,000 shipped ones, with made-up words (a growing vocabulary)
and ranges of prices. The import runs in a process of its own, whose peak memory is measured, first on a quarter of the products
so that its growth can be told; then the shop is opened and searched in another. Last line: one JSON object.

    python benchmarks/webshop_import.py [--products 200000] [--folder scratch]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentdistill.envs.data import data_folder, read_rows
from agentdistill.envs.webshop import catalogue, import_official

SEARCHES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="where the files are made; a temporary folder")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"products": arguments.products}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for part in ("quarter", "all"):
            count = arguments.products // (4 if part == "quarter" else 1)
            source, attributes = write(folder, part, count)
            size = source.stat().st_size
            seconds, cpu, memory, table = alone(imported, source, attributes, folder / f"shop-{part}")
            print(f"{count:,} products ({size / 1e6:,.0f} MB): {seconds:.0f} s ({cpu:.0f} s of CPU), {memory:,.0f} MB at most")
            result[f"import_mb_{part}"] = round(memory)
        disk = sum(path.stat().st_size for path in (folder / "shop-all").iterdir())
        _, _, memory, (opened, times) = alone(searched, folder / "shop-all")
        milliseconds = {"median": statistics.median(times) * 1000, "slowest": max(times) * 1000}
        print(f"{table['lengths']['synthetic_product']:,} goals, {table['terms']:,} terms, {disk / 1e6:,.0f} MB on disk")
        print(f"opened in {opened:.2f} s; {SEARCHES} searches: {milliseconds}; {memory:,.0f} MB at most")
    result |= {
        "import_seconds": round(seconds),
        "import_cpu_seconds": round(cpu),
        "file_mb": round(size / 1e6),
        "disk_mb": round(disk / 1e6),
    }
    result |= {"search_ms": round(milliseconds["median"], 2), "search_ms_slowest": round(milliseconds["slowest"], 2)}
    print(json.dumps({"benchmark": "webshop_import", **result, "shop_mb": round(memory)}))


def write(folder: Path, part: str, count: int) -> tuple[Path, Path]:
    """Write `items_shuffle.json` and `items_ins_v2.json` of so many products."""
    rng = random.Random(count)
    shipped = list(read_rows(data_folder("webshop") / "products_1000.jsonl.gz"))
    source, attributes = folder / f"{part}-items.json", folder / f"{part}-attributes.json"
    with source.open("w") as items, attributes.open("w") as asked:
        for number in range(count):
            one, other, third = (rng.choice(shipped) for _ in range(3))
            bullets = other["small_description"]
            invented = " ".join(f"w{int(rng.paretovariate(0.5))}" for _ in range(8))
            options = {name: [{"value": each} for each in values[:4]] for name, values in list(third["options"].items())[:2]}
            row = {
                "asin": f"B{number:09}", "name": one["name"], "full_description": f"{third['full_description']} {invented}",
                "small_description": bullets if isinstance(bullets, list) else [bullets],
                "pricing": f"${rng.uniform(1, 50):.2f}${rng.uniform(50, 900):.2f}", "customization_options": options,
                "category": one["category"], "query": one["query"], "product_category": one["product_category"],
            }  # fmt: skip
            told = {"attributes": one["Attributes"]}
            if one["instruction_text"]:
                told |= {"instruction": one["instruction_text"], "instruction_attributes": one["instruction_attributes"]}
            first = number == 0
            items.write(("[" if first else ",\n") + json.dumps(row))
            asked.write(("{" if first else ",\n") + f"{json.dumps(row['asin'])}: {json.dumps(told)}")
        items.write("]")
        asked.write("}")
    return source, attributes


def imported(source: Path, attributes: Path, folder: Path) -> Any:
    """Import; what there is."""
    return import_official(source, attributes, None, folder)


def searched(folder: Path) -> tuple[float, list[float]]:
    """Seconds to open the shop, and seconds of CPU of each of some searches with real queries."""
    catalogue.require_tagger = lambda: None  # nothing is bought here
    began = time.perf_counter()
    shop = catalogue.open_catalogue(folder)
    opened = time.perf_counter() - began
    shop.search("lamp")  # loads the text analysis
    queries = [row["query"].lower() for row in read_rows(data_folder("webshop") / "lucene_rankings.jsonl.gz")][:SEARCHES]
    times = []
    for query in queries:
        began = time.process_time()
        shop.search(query)
        times.append(time.process_time() - began)
    return opened, times


def alone(function: Callable[..., Any], *arguments: Any) -> tuple[float, float, float, Any]:
    """Call in a process of its own: seconds, seconds of CPU, its peak memory in MB, and the result."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (function, arguments))


def _measured(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[float, float, float, Any]:
    began, cpu = time.perf_counter(), time.process_time()
    result = function(*arguments)
    seconds = time.perf_counter() - began
    return seconds, time.process_time() - cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, result


if __name__ == "__main__":
    main()
