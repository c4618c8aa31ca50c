"""The data of environments: which sets there are, how official downloads become them, and whether what is there is sound.

An environment's package says what its data set is (`DataSet`) and registers it; the three verbs know the registry only.
"""

from agentdistill.datasets.install import data_import
from agentdistill.datasets.listing import DataInfo, data_list
from agentdistill.datasets.record import Check, Contents, DataSet, Job, Made, Piece
from agentdistill.datasets.registry import find, names, register_dataset, remedy, root, unregister_dataset
from agentdistill.datasets.verify import Verdict, data_verify, require_sound

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
