"""What a score is worth. The simulator's goes from −100 (it failed for good) over 0 to 100 (solved)."""

from __future__ import annotations

from agentdistill.errors import UserError, nearest

REWARDS = ("delta", "score", "best")


def check(name: str) -> str:
    """The name, where it is one of `REWARDS`; a `UserError` otherwise."""
    if name not in REWARDS:
        raise UserError(f"ScienceWorld has no reward '{name}'{nearest(str(name), REWARDS)}")
    return name


def reward(name: str, scores: list[int], *, ended: bool) -> float:
    """The last step's reward, in hundredths of the score.

    Args:
        name: `delta`: the change since the step before, which adds up to what the score rose by (few tasks start above 0);
            `score`: the final score, at the end; `best`: the highest score that was reached, at the end (TCOD's).
        scores: the score at the start and after every step.
        ended: whether the episode ends with this step.
    """
    if name == "delta":
        return (scores[-1] - scores[-2]) / 100
    if not ended:
        return 0.0
    return (max(scores) if name == "best" else scores[-1]) / 100
