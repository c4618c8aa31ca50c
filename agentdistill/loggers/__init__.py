"""Logging back-ends: views of a run's `metrics.jsonl` in Weights & Biases, TensorBoard and trackio.

A back-end reads what stands in the file (`Hub`), so its numbers are the file's, and a run is the same with and without it.
"""

from agentdistill.loggers.entry import Entry
from agentdistill.loggers.registry import Backend, BackendSpec, RunInfo, register

__all__ = ["Backend", "BackendSpec", "Entry", "RunInfo", "register"]
