"""What one episode was, exactly: the data model that every other part of the engine meets through.

A `Trajectory` is a list of `Turn`s. Each turn is one student (or replayed expert) message and the observation that
answers it. Tokens are kept as they were sampled; they are never decoded and encoded again.

A turn's `prompt_ids` are appended to the context of the turn before, unless the turn is `fresh`: then they are a whole
new context. A run of turns that share one context is a *segment*, which is one sequence for a model to score.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agentdistill.errors import UserError, nearest

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

Author = Literal["student", "expert", "noise", "teacher", "earlier"]
"""noise: a random action put into a demonstration; teacher: it went on where the student had played its turns;
earlier: carried over from the episode that this one branches from."""
STUDENT: tuple[Author, ...] = ("student",)
"""Whose tokens carry loss unless an experiment says otherwise."""
Finish = Literal["stop", "length", "replayed"]
IMPORTED = "imported"
"""The policy of a conversation that was had elsewhere, with `:` and its model's name behind it where that is known."""


class StopReason(StrEnum):
    """Why an episode ended."""

    TERMINATED = "terminated"  # the environment reached an end of its own: won, lost, answered
    TRUNCATED = "truncated"  # the environment's own step limit
    MAX_TURNS = "max_turns"  # the experiment's turn limit
    DEPTH = "depth"  # the curriculum's depth for this iteration
    PROMPT_OVERFLOW = "prompt_overflow"  # the next prompt would have left no room for an action
    ENV_ERROR = "env_error"  # the environment raised or broke its contract; never trained on


@dataclass(slots=True)
class ToolCall:
    """One tool call found in a student message, with what came of it."""

    name: str
    arguments: dict[str, Any]
    result: str
    ok: bool


@dataclass(slots=True)
class Turn:
    """One message and the observation that answered it.

    Attributes:
        prompt_ids: token ids put into the context before the action.
        action_ids: token ids of the message, as sampled, its stop token included.
        logprobs: log-probability in nats of each action id at the sampling temperature, before top-k and top-p;
            empty for a replayed expert message.
        logprobs_t1: the same at temperature 1.
        action: the text handed to the environment.
        observation: the environment's answer.
        fresh: whether `prompt_ids` start a new context instead of extending the last one.
        author: who wrote the message; only student messages carry loss, unless the experiment learns from the teacher's.
        finish: whether the message ended by a stop token, by the length limit, or was replayed.
        teacher_prompt_ids: for a fresh turn, the prompt as a teacher with privileged context sees it.
        sample_seconds, env_seconds: wall time spent on the message and on the environment's step.
    """

    prompt_ids: list[int]
    action_ids: list[int]
    action: str
    observation: str
    logprobs: list[float] = field(default_factory=list)
    logprobs_t1: list[float] = field(default_factory=list)
    fresh: bool = False
    author: Author = "student"
    finish: Finish = "stop"
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    tool_calls: list[ToolCall] = field(default_factory=list)
    teacher_prompt_ids: list[int] | None = None
    sample_seconds: float = 0.0
    env_seconds: float = 0.0


@dataclass(slots=True)
class Scores:
    """What one scorer says of a trajectory's student tokens, one entry a token in stream order.

    Attributes:
        logprobs: `[n_action]` log-probability in nats of each student token under the scorer, at temperature 1.
        entropy: `[n_action]` entropy in nats of the scorer's next-token distribution, or None.
        topk_ids, topk_logprobs: `[n_action, k]` the scorer's most likely ids and their log-probabilities, or None.
    """

    logprobs: FloatArray
    entropy: FloatArray | None = None
    topk_ids: IntArray | None = None
    topk_logprobs: FloatArray | None = None


@dataclass(slots=True)
class TokenStream:
    """A trajectory flattened to equal-length columns, a row a token.

    Attributes:
        ids: `[n]` token ids.
        segment: `[n]` which segment, from 0.
        turn: `[n]` which turn, from 0; prompt tokens belong to the turn they precede.
        step: `[n]` which maximal run of consecutive student tokens, from 0; -1 for every other token.
        is_action: `[n]` whether the student sampled this token (or another of the authors that were asked for).
        logprobs: `[n]` nats at the sampling temperature, NaN where the student did not sample.
        logprobs_t1: `[n]` the same at temperature 1.
    """

    ids: IntArray
    segment: IntArray
    turn: IntArray
    step: IntArray
    is_action: BoolArray
    logprobs: FloatArray
    logprobs_t1: FloatArray


@dataclass(slots=True)
class Trajectory:
    """One episode.

    Attributes:
        id: unique within a run's store.
        env_id: versioned Gymnasium id.
        env_options: keyword arguments the environment was made with.
        seed: the seed given to `reset`, which also names the task.
        task_id: the environment's own name for the task.
        task_type: its name for the kind of task, or empty.
        messages: the conversation so far: system (if any) and first observation as `{"role", "content"}`; later
            messages follow from the turns.
        policy, policy_version: who sampled, and after how many updates.
        group: rollouts of the same task in one batch share it (for group advantages).
        prefix_turns: how many replayed turns stand in front: an expert's, put there by the curriculum, or the parent's.
        parent: id of the trajectory that this one branches from, or empty.
        success: whether the environment called the episode a success.
        error: the environment's error, when `stop_reason` is ENV_ERROR.
        windowed: how many times the context was windowed instead of overflowing.
        scores: by scorer name.
    """

    id: str
    env_id: str
    seed: int
    task_id: str
    messages: list[dict[str, str]]
    turns: list[Turn]
    stop_reason: StopReason
    env_options: dict[str, Any] = field(default_factory=dict)
    task_type: str = ""
    parent: str = ""
    success: bool = False
    policy: str = ""
    policy_version: int = 0
    temperature: float = 1.0
    group: int = 0
    prefix_turns: int = 0
    windowed: int = 0
    error: str = ""
    scores: dict[str, Scores] = field(default_factory=dict)

    @property
    def imported(self) -> bool:
        """Whether the conversation was had elsewhere.

        No environment answers for it, its log-probs are NaN, and so is its reward where none was told.
        """
        return self.policy.partition(":")[0] == IMPORTED

    @property
    def reward(self) -> float:
        """Sum of the turns' rewards."""
        return float(sum(turn.reward for turn in self.turns))

    @property
    def n_action_tokens(self) -> int:
        """How many tokens the student sampled."""
        return self.written(STUDENT)

    def written(self, authors: Collection[Author]) -> int:
        """How many tokens these authors wrote."""
        return sum(len(turn.action_ids) for turn in self.turns if turn.author in authors)

    def scores_by(self, scorer: str) -> Scores:
        """A scorer's scores, one a student token.

        Raises:
            UserError: when there are none, or not one a token: a shorter list would be taken for all tokens' scores.
        """
        if scorer not in self.scores:
            raise UserError(
                f"trajectory '{self.id}' has no scores by '{scorer}'{nearest(scorer, self.scores)}; "
                "add them with `agentdistill score`"
            )
        scores, n = self.scores[scorer], self.n_action_tokens
        if len(scores.logprobs) != n:
            raise UserError(
                f"trajectory '{self.id}' has {n} student tokens and {len(scores.logprobs)} scores by '{scorer}'; score it again"
            )
        return scores

    def stream(self, authors: Collection[Author] = STUDENT) -> TokenStream:
        """Flatten the turns into equal-length token columns (see `TokenStream`).

        Args:
            authors: whose messages count as actions.
        """
        ids: list[int] = []
        segment: list[int] = []
        turns: list[int] = []
        action: list[bool] = []
        lp: list[float] = []
        lp1: list[float] = []
        current = -1
        for k, turn in enumerate(self.turns):
            current += turn.fresh or k == 0
            student = turn.author == "student"
            n_prompt, n_action = len(turn.prompt_ids), len(turn.action_ids)
            ids += turn.prompt_ids + turn.action_ids
            segment += [current] * (n_prompt + n_action)
            turns += [k] * (n_prompt + n_action)
            action += [False] * n_prompt + [turn.author in authors] * n_action
            nan = float("nan")
            lp += [nan] * n_prompt + (turn.logprobs if student else [nan] * n_action)
            lp1 += [nan] * n_prompt + (turn.logprobs_t1 if student else [nan] * n_action)
        is_action = np.array(action, dtype=np.bool_)
        segments = np.array(segment, dtype=np.int64)
        return TokenStream(
            ids=np.array(ids, dtype=np.int64),
            segment=segments,
            turn=np.array(turns, dtype=np.int64),
            step=_steps(is_action, segments),
            is_action=is_action,
            logprobs=np.array(lp, dtype=np.float64),
            logprobs_t1=np.array(lp1, dtype=np.float64),
        )


def _steps(is_action: BoolArray, segment: IntArray) -> IntArray:
    """Number the maximal runs of student tokens from 0; a new segment always ends a run."""
    if not len(is_action):
        return np.empty(0, dtype=np.int64)
    before = np.concatenate(([False], is_action[:-1] & (segment[:-1] == segment[1:])))
    starts = is_action & ~before
    return np.where(is_action, np.cumsum(starts) - 1, -1).astype(np.int64)
