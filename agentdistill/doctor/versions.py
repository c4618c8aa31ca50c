"""Versions of what a run's numbers go through, against what this version of agentdistill was tested with."""

from __future__ import annotations

import importlib.metadata
import platform

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from agentdistill.doctor.base import Finding, check, fail, ok, warn
from agentdistill.doctor.patient import Patient

WINDOWS: dict[str, tuple[str, str]] = {
    "torch": (">=2.9", "2.13"),
    "transformers": (">=5.16.1,<5.20", "5.19"),
    "tokenizers": ("", "0.23"),
    "gymnasium": (">=1.2,<2", "1.4"),
    "pydantic": (">=2.10,<3", "2.14"),
    "pyarrow": (">=18", "26.0"),
    "numpy": (">=1.26", "2.4"),
    "peft": (">=0.20", "0.21"),
    "vllm": (">=0.32", "0.33"),
    "ray": (">=2.50", "2.60"),
    "textworld": ("==1.7.0", "1.7"),
    "alfworld": ("==0.4.2", "0.4"),
    "scienceworld": ("==1.2.3", "1.2"),
    "textworld-express": ("==1.1.0", "1.1"),
}
"""By package: what pyproject.toml asks for, and the newest release that the tests ran with."""
OPTIONAL = frozenset({"peft", "vllm", "ray", "textworld", "alfworld", "scienceworld", "textworld-express"})
_PYTHON = ">=3.11,<3.14"


@check("versions", "cheap", at_start=True, alone=True)
def versions(patient: Patient) -> Finding:
    """Python and packages are within their windows; newer than tested is a warning."""
    wrong, newer, fine = [], [], []
    for name, (window, tested) in {"python": (_PYTHON, "3.13"), **WINDOWS}.items():
        found = _installed(name)
        if found is None:
            if name not in OPTIONAL:
                wrong.append(f"{name} is not installed: pip install '{name}{window}'")
            continue
        if found not in SpecifierSet(window, prereleases=True):
            wrong.append(f"{name} {found} is outside {window}: pip install '{name}{window}'")
        elif Version(tested).release < found.release[:2]:
            newer.append(f"{name} {found} (tested up to {tested})")
        else:
            fine.append(f"{name} {found}")
    if wrong:
        return fail("; ".join(wrong))
    if newer:
        return warn(f"newer than what was tested: {', '.join(newer)}")
    return ok(", ".join(fine))


def _installed(name: str) -> Version | None:
    if name == "python":
        return Version(platform.python_version())
    try:
        return Version(importlib.metadata.version(name))
    except (importlib.metadata.PackageNotFoundError, InvalidVersion):
        return None
