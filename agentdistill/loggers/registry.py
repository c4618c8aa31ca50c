"""The back-ends by name, and what an experiment may ask of them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agentdistill.errors import UserError, nearest
from agentdistill.loggers.entry import Entry

ALWAYS = "jsonl"
"""`metrics.jsonl` itself, which is written whatever else is."""


class Backend(Protocol):
    """A view of one run, open. What it raises turns it off, and never the run."""

    @property
    def start(self) -> int:
        """The first line that it does not have yet: earlier ones are not written to it."""
        ...

    def write(self, entry: Entry) -> None:
        """Take one line; they come in order, each once."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Whose view it is.

    Attributes:
        folder: of the run; what a back-end keeps goes into a folder of its name there.
        name: of the run.
        id: made once for the run, of 12 hexadecimal digits; a resumed run has the same.
        project: under which the run is listed.
        mode: `offline` or `online`.
        config: the experiment.
    """

    folder: Path
    name: str
    id: str
    project: str = "agentdistill"
    mode: str = "offline"
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """A back-end.

    Attributes:
        open: `module:function`, or a function, from `RunInfo` to the open `Backend`.
        package: what it imports; empty: nothing that may be missing.
        install: how that is installed.
    """

    name: str
    open: str | Callable[[RunInfo], Backend]
    package: str = ""
    install: str = ""

    def opened(self, run: RunInfo) -> Backend:
        """The back-end of a run."""
        if callable(self.open):
            return self.open(run)
        module, _, function = self.open.partition(":")
        made: Backend = getattr(importlib.import_module(module), function)(run)
        return made


BACKENDS: dict[str, BackendSpec] = {}


def register(spec: BackendSpec) -> BackendSpec:
    """Make a back-end known by its name.

    Raises:
        UserError: when another has it.
    """
    if spec.name == ALWAYS or BACKENDS.get(spec.name, spec) != spec:
        raise UserError(f"the logging back-end '{spec.name}' is registered twice")
    BACKENDS[spec.name] = spec
    return spec


for _name, _module in {"wandb": "wandb", "tensorboard": "tensorboard", "trackio": "trackio"}.items():
    register(
        BackendSpec(_name, f"agentdistill.loggers.{_name}_view:open_view", _module, f"pip install 'agentdistill[{_name}]'")
    )


def chosen(names: Sequence[str]) -> list[BackendSpec]:
    """The back-ends of these names; `jsonl`, which is always there, is none.

    Raises:
        UserError: for an unknown name, one that is named twice, or a package that is not installed.
    """
    out = []
    for name in names:
        if name not in BACKENDS and name != ALWAYS:
            raise UserError(f"log.backends names '{name}', and there is no such back-end{nearest(name, (ALWAYS, *BACKENDS))}")
        if names.count(name) > 1:
            raise UserError(f"log.backends names '{name}' twice; name it once")
        if name == ALWAYS:
            continue
        spec = BACKENDS[name]
        if spec.package and importlib.util.find_spec(spec.package) is None:
            raise UserError(
                f"log.backends names '{name}', and the package {spec.package} is not installed; {spec.install}, or drop it"
            )
        out.append(spec)
    return out
