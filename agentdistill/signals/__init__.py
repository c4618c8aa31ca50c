"""Methods as pure functions from the token table of a batch to per-token advantages, weights and masks."""

from agentdistill.signals.method import PRESETS, Method, Streams, register_preset
from agentdistill.signals.registry import (
    AGGREGATIONS,
    BASELINES,
    DIVERGENCES,
    GATES,
    RATIOS,
    RL_TERMS,
    SELECTIONS,
    SIGNALS,
    STEP_WEIGHTS,
    Choice,
    Registry,
)
from agentdistill.signals.table import TokenTable

__all__ = [
    "AGGREGATIONS",
    "BASELINES",
    "DIVERGENCES",
    "GATES",
    "PRESETS",
    "RATIOS",
    "RL_TERMS",
    "SELECTIONS",
    "SIGNALS",
    "STEP_WEIGHTS",
    "Choice",
    "Method",
    "Registry",
    "Streams",
    "TokenTable",
    "register_preset",
]
