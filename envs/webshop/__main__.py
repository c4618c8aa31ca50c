"""`python -m agentdistill.envs.webshop`: import the original's files (see `official.import_official`)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from agentdistill.envs.webshop.official import import_official
from agentdistill.errors import UserError


def main() -> int:
    """Import, and say what there is; 1 where it was refused."""
    parser = argparse.ArgumentParser(prog="python -m agentdistill.envs.webshop", description="Import WebShop's original files.")
    parser.add_argument("products", type=Path, help="items_shuffle.json")
    parser.add_argument("attributes", type=Path, help="items_ins_v2.json")
    parser.add_argument("folder", type=Path, help="a new folder, for the environment's option 'folder'")
    parser.add_argument("--human", type=Path, help="items_human_ins.json")
    parser.add_argument("--seed", type=int, default=0, help="of the prices and price limits")
    parser.add_argument("--nouns", action="store_true", help="tag the titles now, with spaCy")
    arguments = parser.parse_args()
    try:
        table = import_official(
            arguments.products, arguments.attributes, arguments.human, arguments.folder,
            seed=arguments.seed, nouns=arguments.nouns,
            progress=lambda read: print(f"\r{read:,} products", end="", file=sys.stderr, flush=True),
        )  # fmt: skip
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    lengths = table["lengths"]
    print(
        f"\n{lengths['prices']:,} products, {lengths['synthetic_product']:,} synthetic and {lengths['human_product']:,} human "
        f"goals in {arguments.folder}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
