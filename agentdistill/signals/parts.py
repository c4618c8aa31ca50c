"""What a divergence is called with: the calling convention of `DIVERGENCES`, in one place."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

import torch
from torch import Tensor

Lazy = Callable[[], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a divergence may ask for about the same `n` tokens. A function is called once, and only where its value is needed.

    Attributes:
        ids: `[n]` the sampled tokens.
        logprob: `[n]` log π of them, differentiable; nats, like all that follow.
        student: `[n, V]` log π, differentiable.
        teacher_logprob: `[n]` log T of the sampled tokens.
        teacher: `[n, V]` log T; None where no scorer gives it, as the next two.
        reference: `[n, V]` log R.
        reward: `[n]` the reward of each token's episode.
    """

    ids: Tensor
    logprob: Tensor
    student: Lazy
    teacher_logprob: Lazy | None = None
    teacher: Lazy | None = None
    reference: Lazy | None = None
    reward: Lazy | None = None

    def data(self, needs: Set[str]) -> tuple[Tensor, ...]:
        """The positional arguments of a divergence with these needs (see `registry.DIVERGENCES`)."""
        if "distribution" in needs:
            sides = [self.student(), _given(self.teacher, "distribution")]
            if "reference-distribution" in needs:
                sides.append(_given(self.reference, "reference-distribution"))
            out = common_vocabulary(*sides)
        elif "teacher" in needs:
            out = (self.logprob, _given(self.teacher_logprob, "teacher"))
        else:
            out = (self.logprob,)
        out = (*out, self.ids) if "ids" in needs else out
        return (*out, _given(self.reward, "rewards")) if "rewards" in needs else out


def common_vocabulary(*sides: Tensor) -> tuple[Tensor, ...]:
    """Cut log-distributions `[..., V_i]` to the ids that every head has, and renormalise those that were cut.

    Models of one family pad their output heads to different widths; the padding's ids are never sampled.
    """
    width = min(side.shape[-1] for side in sides)
    return tuple(s if s.shape[-1] == width else torch.log_softmax(s[..., :width], dim=-1) for s in sides)


def _given(part: Lazy | None, need: str) -> Tensor:
    assert part is not None, f"a method that needs '{need}' is refused before it runs where nobody gives it"
    return part()
