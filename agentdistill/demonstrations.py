"""Expert demonstrations: episodes that an environment's expert plays, some with random actions that it must recover from.

A random action stays in the context, so that a model sees states off the expert's path, but it is never a target.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from agentdistill.chat import Chat, Prompt
from agentdistill.errors import UserError
from agentdistill.pool import EnvPool, Play
from agentdistill.rollout import opening
from agentdistill.seeds import derive
from agentdistill.trajectory import Author, StopReason, Trajectory, Turn


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence for supervised training: ids, and whether each is a target."""

    ids: list[int]
    target: list[bool]


def demonstrate(
    pool: EnvPool, seeds: Sequence[int], chat: Chat, *, max_turns: int, max_context: int, noise: float = 0.0, seed: int = 0
) -> list[Trajectory]:
    """Play the expert once on each task; before each of its moves, a random action is taken with chance `noise`.

    Raises:
        UserError: when the environment has no expert, or noise is asked of one without `random_action`.
        EnvironmentFault: when the environment fails.
    """
    if noise and seeds and not hasattr(pool.prototype().unwrapped, "random_action"):
        raise UserError(f"environment '{pool.env_id}' has no random_action(rng), which sft.noise needs; set sft.noise to 0")
    return pool.play(
        _episode(pool, task, chat, max_turns, max_context, noise, derive(seed, "demo", i)) for i, task in enumerate(seeds)
    )


def _episode(
    pool: EnvPool, task: int, chat: Chat, max_turns: int, max_context: int, noise: float, seed: int
) -> Play[Trajectory]:
    rng = random.Random(seed)
    first = yield "reset", (task,)
    messages = opening((yield "system_prompt", ()), first.observation)
    out = Trajectory(
        id=f"demo/{task}-{seed}", env_id=pool.env_id, env_options=dict(pool.options), seed=task, task_id=first.task_id,
        messages=list(messages), turns=[], stop_reason=StopReason.MAX_TURNS, policy="expert",
    )  # fmt: skip
    if any(chat.surely_longer(m["content"], max_context) for m in messages):
        out.stop_reason = StopReason.PROMPT_OVERFLOW
        return out
    prompt = Prompt(chat.start(messages), fresh=True)
    used = 0
    while len(out.turns) < max_turns:
        author: Author = "noise" if noise and rng.random() < noise else "expert"
        if author == "noise":
            action, state = yield "random_action", (rng.getstate(),)
            rng.setstate(state)
        else:
            action = yield "expert_action", ()
        if action is None:
            if not out.turns:
                raise UserError(f"environment '{pool.env_id}' has no expert for task {task}, so nothing can be imitated")
            break
        used = (0 if prompt.fresh else used) + len(prompt.ids)
        ids = [] if chat.surely_longer(action, max_context) else chat.message_ids(action)
        used += len(ids)
        if not ids or used > max_context:
            out.stop_reason = StopReason.PROMPT_OVERFLOW
            break
        answer = yield "step", (action,)
        out.turns.append(
            Turn(prompt.ids, ids, action, answer.observation, fresh=prompt.fresh, author=author, finish="replayed",
                 reward=answer.reward, terminated=answer.terminated, truncated=answer.truncated,
                 tool_calls=answer.tool_calls or [])
        )  # fmt: skip
        if answer.success is not None:
            out.success = answer.success
        messages.append({"role": "assistant", "content": action})
        if answer.terminated or answer.truncated:
            out.stop_reason = StopReason.TERMINATED if answer.terminated else StopReason.TRUNCATED
            break
        if chat.surely_longer(answer.observation, max_context):
            out.stop_reason = StopReason.PROMPT_OVERFLOW
            break
        prompt = chat.bridge(messages, ids, answer.observation)
        messages.append({"role": "user", "content": answer.observation})
    return out


def examples(trajectory: Trajectory) -> list[Example]:
    """One example a segment; the expert's tokens are the targets."""
    out: list[Example] = []
    for turn in trajectory.turns:
        if turn.fresh or not out:
            out.append(Example([], []))
        out[-1].ids.extend([*turn.prompt_ids, *turn.action_ids])
        out[-1].target.extend([False] * len(turn.prompt_ids) + [turn.author == "expert"] * len(turn.action_ids))
    return out


def transcript(trajectory: Trajectory) -> str:
    """A trajectory's text: what a tokenizer for its environment is trained on."""
    said = [m["content"] for m in trajectory.messages]
    for turn in trajectory.turns:
        said += [turn.action, turn.observation]
    return "\n".join(said)
