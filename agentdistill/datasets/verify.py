"""`data verify`: checksums against the manifest, every row read, and a sample of the tasks played."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentdistill.datasets import manifest
from agentdistill.datasets.record import Check, DataSet
from agentdistill.datasets.registry import VARIABLE, find, names, root
from agentdistill.errors import UserError
from agentdistill.faults import described
from agentdistill.modules import import_module

_SHOWN = 5


@dataclass(slots=True)
class Verdict:
    """What was found of a data set.

    Attributes:
        notes: what was looked at without being counted.
        checks: what was counted.
        failures: a sentence for each other thing that is wrong.
        missing: it is not there at all.
    """

    name: str
    notes: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    missing: bool = False

    @property
    def sound(self) -> bool:
        """Whether nothing failed."""
        return not self.failures and not any(check.failed for check in self.checks)

    def __str__(self) -> str:
        state = "missing" if self.missing else "sound" if self.sound else "FAILED"
        named = []
        for check in self.checks:
            rest = f" and {len(check.failed) - _SHOWN} more" if len(check.failed) > _SHOWN else ""
            named.append(f"{check}{' (not: ' + ', '.join(check.failed[:_SHOWN]) + rest + ')' if check.failed else ''}")
        return f"{self.name}: {'; '.join([state, *self.failures, *self.notes, *named])}"


def data_verify(
    *wanted: str, sample: int = 10, all: bool = False, at: str | Path | None = None, module: str = "",
    say: Callable[[str], None] | None = None,
) -> list[Verdict]:  # fmt: skip
    """Check data sets, and play. It chooses the same tasks each time.

    Args:
        wanted: names of data sets; all that are there by default.
        sample: how many tasks of each kind are played.
        all: play every task.
        at: the folder below which they lie, instead of the one that `AGENTDISTILL_DATA` names.
        module: Python module, or `.py` file, to import first, which registers data sets.
        say: takes a line for each data set; the terminal by default.

    Raises:
        UserError: for a name there is not, a sample below 1, or where there is no data at all.
    """
    if module:
        import_module(module)
    chosen = [find(name) for name in wanted or names()]
    if sample < 1:
        raise UserError(f"--sample is {sample} but must be at least 1")
    top = root(at)
    if top is None:
        raise UserError(f"set {VARIABLE} to the folder where the data sets lie, or name it with --at")
    verdicts = []
    for data_set in chosen:
        verdict = _verdict(data_set, top / data_set.name, None if all else sample, bool(wanted))
        (say or print)(str(verdict))
        verdicts.append(verdict)
    if not any(not verdict.missing for verdict in verdicts) and not wanted:
        raise UserError(f"there is no data set below '{top}'; agentdistill data list says how to get them")
    return verdicts


def require_sound(verdicts: Sequence[Verdict]) -> None:
    """Raise a UserError that names the data sets in which something failed."""
    if failed := [verdict.name for verdict in verdicts if not verdict.sound]:
        raise UserError(f"{len(failed)} of {len(verdicts)} data sets failed: {', '.join(failed)}")


def _verdict(data_set: DataSet, folder: Path, sample: int | None, required: bool) -> Verdict:
    out = Verdict(data_set.name)
    if not folder.is_dir():
        out.missing = True
        (out.failures if required else out.notes).append(f"there is no folder '{folder}': {data_set.remedy()}")
        return out
    data_set.forget()
    try:
        told = manifest.read(folder)
        if told is None:
            out.notes.append("no manifest, so no checksums")
        else:
            changed = manifest.differences(folder, told)
            out.failures += changed
            out.notes += [] if changed else [f"{len(told.files)} files as in the manifest"]
        out.notes += [f"lacks {each}" for each in data_set.count(folder).lacks]
        if needs := [sentence for requirement in data_set.requires if (sentence := requirement())]:
            out.failures.append(f"not played, it {needs[0]}")
            return out
        out.checks += data_set.verifier(folder, sample)
    except UserError as error:
        out.failures.append(str(error))
    except Exception as error:  # a verifier plays what it reads, and may be anybody's
        out.failures.append(f"cannot be checked: {described(error)}")
    return out
