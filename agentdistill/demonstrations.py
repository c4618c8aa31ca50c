"""Expert demonstrations: episodes that an environment's expert plays, some with random actions that it must recover from.

A random action stays in the context, so that a model sees states off the expert's path, but it is never a target.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from agentdistill.chat import Chat
from agentdistill.context import Context
from agentdistill.episode import Play
from agentdistill.errors import UserError
from agentdistill.pool import EnvPool
from agentdistill.recorded import Recorded
from agentdistill.seeds import derive
from agentdistill.trajectory import Author, StopReason, Trajectory, Turn
from agentdistill.view import CHAT, View, opening


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence for supervised training: ids, and whether each is a target."""

    ids: list[int]
    target: list[bool]


def demonstrate(
    pool: EnvPool, seeds: Sequence[int], chat: Chat, *, max_turns: int, max_context: int, noise: float = 0.0, seed: int = 0,
    recorded: Recorded | None = None, view: View = CHAT,
) -> list[Trajectory]:  # fmt: skip
    """Play the expert once on each task; before each of its moves, a random action is taken with chance `noise`.

    Args:
        recorded: action lists that take precedence over the expert. They are played as they are, without random actions,
            since they have no answer to them. Tasks with neither are left out.
        view: how episodes are shown, as in rollouts (a conversation that is too long ends here, and is not windowed).

    Raises:
        UserError: when the environment has no expert, or noise is asked of one without `random_action`.
        EnvironmentFault: when the environment fails.
    """
    scripts = recorded.actions if recorded is not None else {}
    if noise and not scripts.keys() >= set(seeds) and not hasattr(pool.prototype().unwrapped, "random_action"):
        raise UserError(f"environment '{pool.env_id}' has no random_action(rng), which sft.noise needs; set sft.noise to 0")
    without = recorded is not None
    played = pool.play(
        _episode(
            pool, Context(chat, view, max_context), task, max_turns, noise, derive(seed, "demo", i), scripts.get(task), without
        )
        for i, task in enumerate(seeds)
    )
    return played if recorded is None else [t for t in played if t.turns or t.stop_reason != StopReason.MAX_TURNS]


def _episode(
    pool: EnvPool, context: Context, task: int, max_turns: int, noise: float, seed: int,
    script: Sequence[str] | None, without: bool,
) -> Play[Trajectory]:  # fmt: skip
    rng = random.Random(seed)
    first = yield "reset", (task,)
    system = yield "system_prompt", ()
    out = Trajectory(
        id=f"demo/{task}-{seed}", env_id=pool.env_id, env_options=dict(pool.options), seed=task, task_id=first.task_id,
        task_type=first.task_type, messages=opening(system, first.observation), turns=[],
        stop_reason=StopReason.MAX_TURNS, policy="expert",
    )  # fmt: skip
    fits = context.begin(system, first)
    while len(out.turns) < max_turns:
        author: Author = "noise" if script is None and noise and rng.random() < noise else "expert"
        if author == "noise":
            action, state = yield "random_action", (rng.getstate(),)
            rng.setstate(state)
        elif script is not None:
            action = script[len(out.turns)] if len(out.turns) < len(script) else None
        else:
            action = yield "expert_action", ()
        if action is None:
            if not out.turns and not without:
                raise UserError(f"environment '{pool.env_id}' has no expert for task {task}, so nothing can be imitated")
            break
        chat, prompt = context.chat, context.prompt
        ids = [] if not fits or chat.surely_longer(action, context.limit) else chat.message_ids(action)
        if not ids or len(context.ids) + len(ids) > context.limit:
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
        if answer.terminated or answer.truncated:
            out.stop_reason = StopReason.TERMINATED if answer.terminated else StopReason.TRUNCATED
            break
        if len(out.turns) < max_turns:
            fits = context.extend(ids, action, answer)
        out.windowed = context.windowed
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
