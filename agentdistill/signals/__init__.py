"""Methods as pure functions from the token table of a batch to per-token advantages, weights and masks."""

from agentdistill.signals import presets  # noqa: F401  # registers them
from agentdistill.signals.method import AXES, PRESETS, Method, Streams, register_preset
from agentdistill.signals.registry import (
    AGGREGATIONS,
    BASELINES,
    COEFFICIENTS,
    DIVERGENCES,
    GATES,
    IMPORTANCE,
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
    "AXES",
    "BASELINES",
    "COEFFICIENTS",
    "DIVERGENCES",
    "GATES",
    "IMPORTANCE",
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
