"""What a step is worth, and the presets: a prompt, a reward and a number of turns that a published system uses together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pydantic

from agentdistill.errors import UserError, nearest


class Reward(pydantic.BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """`won` for the step that wins, and `malformed` for every message that is not `<think>…</think><action>…</action>`."""

    won: float = 1.0
    malformed: float = 0.0

    def __call__(self, won: bool, well_formed: bool) -> float:
        """The reward of a step."""
        return self.won * won + self.malformed * (not well_formed)


REWARDS = {"binary": Reward(), "verl-agent": Reward(won=10.0, malformed=-0.1)}


def load_reward(spec: str | Mapping[str, Any]) -> Reward:
    """A reward by name, or by its values (`{won: 1, malformed: -0.05}`).

    Raises:
        UserError: for an unknown name or value.
    """
    if isinstance(spec, str):
        if spec not in REWARDS:
            raise UserError(f"ALFWorld has no reward '{spec}'{nearest(spec, REWARDS)}")
        return REWARDS[spec]
    try:
        return Reward.model_validate(dict(spec))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        near = nearest(name, Reward.model_fields) if first["type"] == "extra_forbidden" else ""
        raise UserError(f"ALFWorld's option 'reward', value '{name}': {first['msg'].lower()}{near}") from error


@dataclass(frozen=True, slots=True)
class Preset:
    """What a published system uses together: names of a prompt and a reward, and messages an episode may have."""

    prompt: str
    reward: str
    max_turns: int


PRESETS = {
    "tcod": Preset("tcod", "binary", 30),  # arXiv 2604.24005
    "verl-agent": Preset("verl-agent", "verl-agent", 50),  # GiGPO, arXiv 2505.10978
}


def load_preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        UserError: when there is none.
    """
    if name not in PRESETS:
        raise UserError(f"ALFWorld has no preset '{name}'{nearest(str(name), PRESETS)}")
    return PRESETS[name]
