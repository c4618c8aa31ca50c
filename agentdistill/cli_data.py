"""The command line of `agentdistill data`: one sub-verb, one function of `agentdistill.api`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from agentdistill import yamltext
from agentdistill.errors import UserError


@dataclass(frozen=True)
class List:
    """List the data sets of the environments: where each is expected, whether it is there, and how to get what is missing."""

    at: Path | None = None
    """Folder below which data sets lie (default: the one that AGENTDISTILL_DATA names)."""
    module: str = ""
    """Python module, or .py file, to import first, which registers data sets."""

    def run(self) -> None:
        """Do it."""
        from agentdistill import api

        for info in api.data_list(at=self.at, module=self.module):
            print(info)


@dataclass(frozen=True)
class Import:
    """Turn official files that you downloaded into a data set. Nothing is fetched; `data list` says what to download."""

    name: Annotated[Positional[str], tyro.conf.arg(metavar="NAME")]
    """Data set, as `data list` names it."""
    sources: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="SOURCE")] = ()
    """Files or folders; part=path where a data set has several files."""
    to: Path | None = None
    """Folder below which it goes (default: the one that AGENTDISTILL_DATA names)."""
    force: bool = False
    """Replace what is there, once the new one is complete."""
    add: bool = False
    """Keep what is there and add to it."""
    partial: bool = False
    """Accept fewer tasks than the official set has."""
    options: str = "{}"
    """Options of the data set's importer, as a YAML mapping."""
    module: str = ""
    """Python module, or .py file, to import first, which registers the data set."""

    def run(self) -> None:
        """Do it."""
        from agentdistill import api

        api.data_import(
            self.name, *self.sources, to=self.to, force=self.force, add=self.add, partial=self.partial,
            options=mapping(self.options, "{nouns: true}"), module=self.module,
        )  # fmt: skip


@dataclass(frozen=True)
class Verify:
    """Hold data sets against their checksums, read every row, and play a sample; exits with 1 where something failed."""

    names: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="NAME")] = ()
    """Data sets (default: all that are there)."""
    sample: int = 10
    """Tasks of each kind to play; always the same ones."""
    all: bool = False
    """Play every task."""
    at: Path | None = None
    """Folder below which data sets lie (default: the one that AGENTDISTILL_DATA names)."""
    module: str = ""
    """Python module, or .py file, to import first, which registers data sets."""

    def run(self) -> None:
        """Do it."""
        from agentdistill import api
        from agentdistill.datasets import require_sound

        found = api.data_verify(*self.names, sample=self.sample, all=self.all, at=self.at, module=self.module)
        require_sound(found)


def _sub(name: str) -> Any:
    return tyro.conf.subcommand(name, prefix_name=False)


Sub = Annotated[List, _sub("list")] | Annotated[Import, _sub("import")] | Annotated[Verify, _sub("verify")]


@dataclass(frozen=True)
class Data:
    """List, import or verify the data of environments."""

    verb: Annotated[Sub, tyro.conf.arg(name="", help="")]

    def run(self) -> None:
        """Do it."""
        self.verb.run()


def mapping(text: str, example: str) -> dict[str, Any]:
    """The value of `--options`."""
    try:
        options = yamltext.read(text)
    except UserError as error:
        raise UserError(f"the value of --options {error}") from error
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise UserError(f"--options must be a YAML mapping such as '{example}', not {text!r}")
    return options
