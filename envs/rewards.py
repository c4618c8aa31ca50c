"""Rewards of question-and-answer environments: what an episode is worth, should it end after the present message.

An environment hands out the difference after every message, so that an episode cut off by a limit of the trainer's has
returned what it was worth: under SOD's reward a question without an answer costs 1, however the episode came to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pydantic

from agentdistill.errors import UserError, nearest
from agentdistill.wording import sentence


@dataclass(frozen=True, slots=True)
class Outcome:
    """An episode up to now: whether the task is solved, the well-formed tool calls, and characters of messages and answers."""

    success: bool
    tool_calls: int
    characters: int


Reward = Callable[[Outcome], float]


class Binary(pydantic.BaseModel, extra="forbid", frozen=True):
    """1 for a solved task, else 0."""

    def __call__(self, outcome: Outcome) -> float:
        """The episode's worth."""
        return float(outcome.success)


class Sod(pydantic.BaseModel, extra="forbid", frozen=True):
    """SOD's reward (arXiv 2605.07725).

        success ? 1 : min(bonus_most, −1 + bonus · tool calls)   −   clip((tokens − (max_tokens − overlong)) / overlong, 0, 1)

    Attributes:
        max_tokens: the response's length limit.
        overlong: the penalty grows linearly over these last tokens, to 1.
        bonus: what a tool call adds to a wrong answer.
        bonus_most: the most a wrong answer is worth.
        characters_per_token: an environment sees text only, so tokens are reckoned from characters.
    """

    max_tokens: int = pydantic.Field(20_480, ge=1)
    overlong: int = pydantic.Field(1_024, ge=1)
    bonus: float = pydantic.Field(0.1, ge=0)
    bonus_most: float = -0.6
    characters_per_token: float = pydantic.Field(4.0, gt=0)

    def __call__(self, outcome: Outcome) -> float:
        """The episode's worth."""
        wrong = min(self.bonus_most, -1.0 + self.bonus * outcome.tool_calls)
        over = outcome.characters / self.characters_per_token - (self.max_tokens - self.overlong)
        return (1.0 if outcome.success else wrong) - min(max(over / self.overlong, 0.0), 1.0)


REWARDS: dict[str, type[Binary] | type[Sod]] = {"binary": Binary, "sod": Sod}


def load_reward(spec: str | Mapping[str, Any]) -> Reward:
    """A reward by name (`sod`), or with settings (`{kind: sod, max_tokens: 4096}`).

    Raises:
        UserError: for an unknown name or setting, or a value that does not fit.
    """
    settings = {"kind": spec} if isinstance(spec, str) else dict(spec)
    kind = settings.pop("kind", None)
    if kind not in REWARDS:
        raise UserError(f"there is no reward '{kind}'{nearest(str(kind), REWARDS)}")
    try:
        return REWARDS[kind].model_validate(settings)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise UserError(f"reward '{kind}' has no setting '{name}'{nearest(name, REWARDS[kind].model_fields)}") from error
        raise UserError(sentence(first, f"reward '{kind}': {name}")) from error
