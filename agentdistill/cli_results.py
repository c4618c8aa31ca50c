"""Verbs around results: a panel of tasks, what was found shown again, where a student's steps come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.conf import Positional

from agentdistill.cli_data import mapping


@dataclass(frozen=True)
class Panel:
    """Make a panel: a stored list of tasks to evaluate on, which `eval --panel` refuses when they are no longer the same."""

    env: Annotated[Positional[str], tyro.conf.arg(metavar="ENV")]
    """Registered environment id."""
    out: str
    """Its file, such as panels/cooking.json; one that is there is refused."""
    split: str = "test"
    """Split that the tasks are taken from."""
    tasks: int | None = None
    """How many, its first ones (default: 200, or all)."""
    per_type: int | None = None
    """So many tasks of each type instead, of the whole split or its first --tasks."""
    name: str = ""
    """What it is called (default: the file's name)."""
    options: str = "{}"
    """Keyword arguments of the environment, as a YAML mapping."""
    module: str = ""
    """Python module, or .py file, to import first, which registers the environment."""
    workers: int = 0
    """Processes that hold the environments; 0: this one."""

    def run(self) -> None:
        """Do it."""
        from agentdistill import api

        options = mapping(self.options, "{challenge: cooking}")
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        print("\n".join(api.panel(**{**values, "options": options}).lines))


@dataclass(frozen=True)
class Show:
    """Show a stored result again: an evaluation, a comparison or a panel. Nothing is played."""

    what: Annotated[Positional[str], tyro.conf.arg(metavar="RESULT")]
    """Folder of an evaluation, a rollout or a run, FOLDER:BATCH, or the file of a comparison or a panel."""

    def run(self) -> None:
        """Do it."""
        from agentdistill import api

        print("\n".join(api.show(self.what)))


@dataclass(frozen=True)
class Provenance:
    """Which steps of a run's student come from its teacher, and which from the student as it was before."""

    run_folder: Annotated[Positional[str], tyro.conf.arg(name="run", metavar="RUN")]
    """Folder of a run whose store both have scored; the error says how, where they have not."""
    teacher: str = ""
    """Name of the teacher's scores (default: the run's own teacher's)."""
    student: str = "student"
    """Name of the scores of the student before distillation."""
    batch: str | None = None
    """One stored batch, such as iter-000001 (default: all that both have scored)."""
    alpha: float = 0.1
    """A step is shared where all three probabilities are this close."""
    beta: float = 0.1
    """It is the teacher's, or the student's, where that one's probability is greater by more than this."""
    out: str | None = None
    """A Parquet file for a row a step."""

    def run(self) -> None:
        """Do it."""
        from agentdistill import api, console

        fields = ("teacher", "student", "batch", "alpha", "beta", "out")
        found = api.provenance(self.run_folder, **{name: getattr(self, name) for name in fields})
        print(f"teacher '{found.teacher}', student before '{found.student}'; alpha {found.alpha:g}, beta {found.beta:g}")
        for columns, rows in found.tables():
            print()
            console.table(columns, rows)
