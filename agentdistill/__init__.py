"""Multi-turn, tool-using, on-policy distillation of language-model agents."""

from __future__ import annotations

from typing import Any

from agentdistill import stop as _stop  # noqa: F401  (first: see its text)

# isort: split
from agentdistill import graders
from agentdistill.environment import TextEnv, make, register
from agentdistill.errors import UserError, nearest
from agentdistill.tool import Tool, tool
from agentdistill.trajectory import StopReason, ToolCall, Trajectory, Turn

# isort: split
# For `gymnasium.make("agentdistill:agentdistill/ALFWorld-v0")`, which imports nothing else: names only, no environment.
from agentdistill import envs as _envs  # noqa: F401

__version__ = "0.1.0"
_VERBS = (
    "branch",
    "compare",
    "data_import",
    "data_list",
    "data_verify",
    "doctor",
    "dry_run",
    "envs",
    "evaluate_run",
    "experiment",
    "export",
    "import_trajectories",
    "load_comparison",
    "load_eval",
    "load_panel",
    "load_run",
    "merge",
    "panel",
    "plan",
    "provenance",
    "record_demonstrations",
    "replay",
    "report",
    "rollout",
    "score",
    "sft",
    "show",
    "train",
    "view",
    "what_if",
)


def __getattr__(name: str) -> Any:
    """The verbs, imported when first used: they bring torch with them, which registering an environment does not need."""
    if name in _VERBS:
        from agentdistill import api

        return getattr(api, name)
    raise AttributeError(f"module 'agentdistill' has no attribute '{name}'{nearest(name, (*__all__, *_VERBS))}")


__all__ = [
    "StopReason",
    "TextEnv",
    "Tool",
    "ToolCall",
    "Trajectory",
    "Turn",
    "UserError",
    "graders",
    "make",
    "register",
    "tool",
]
