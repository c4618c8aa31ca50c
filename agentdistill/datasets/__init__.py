"""The data of environments: which sets there are, how official downloads become them, and whether what is there is sound.

An environment's package says what its data set is (`DataSet`) and registers it; the three verbs know the registry only. They
are imported when first used: environments are registered at every import of the package, and need the registry alone.
"""

import importlib
from typing import TYPE_CHECKING, Any

from agentdistill.datasets.record import Check, Contents, DataSet, Job, Made, Piece
from agentdistill.datasets.registry import find, names, register_dataset, remedy, root, unregister_dataset

if TYPE_CHECKING:
    from agentdistill.datasets.install import data_import
    from agentdistill.datasets.listing import DataInfo, data_list
    from agentdistill.datasets.verify import Verdict, data_verify, require_sound

_LATER = {
    "data_import": "install", "DataInfo": "listing", "data_list": "listing", "Verdict": "verify", "data_verify": "verify",
    "require_sound": "verify",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = [
    "Check",
    "Contents",
    "DataInfo",
    "DataSet",
    "Job",
    "Made",
    "Piece",
    "Verdict",
    "data_import",
    "data_list",
    "data_verify",
    "find",
    "names",
    "register_dataset",
    "remedy",
    "require_sound",
    "root",
    "unregister_dataset",
]
