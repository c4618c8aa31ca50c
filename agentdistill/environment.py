"""What the engine asks of an environment, each answer checked.

Any `gymnasium.Env` whose observations and actions are strings will do. `TextEnv` adds what distillation can use when it
is there: a system prompt, named task splits, an expert, and a plan that a teacher may be shown. How environments are
registered, listed and made is `registration.py`; its names are here too.
"""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from agentdistill.errors import UserError, nearest
from agentdistill.faults import Breach, EnvironmentFault, blame, one_line, require_text
from agentdistill.guards import Guarded
from agentdistill.registration import (
    Entry,
    Requirement,
    catalogue,
    load_plugins,
    make,
    needs_package,
    register,
    registered,
    unregister,
)
from agentdistill.trajectory import ToolCall

__all__ = [
    "Action",
    "Answer",
    "Entry",
    "EnvironmentFault",
    "Observation",
    "Requirement",
    "TextEnv",
    "UnicodeText",
    "catalogue",
    "expert_action",
    "load_plugins",
    "make",
    "needs_package",
    "pick_split",
    "plan",
    "random_action",
    "register",
    "registered",
    "reset",
    "splits",
    "step",
    "system_prompt",
    "task_seeds",
    "unregister",
]

Observation = str
Action = str


class UnicodeText(gym.spaces.Space[str]):
    """Strings of at most `max_length` characters of any script. `gymnasium.spaces.Text` fixes a character set."""

    def __init__(self, max_length: int = 65_536, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(None, None, seed)
        self.max_length = max_length

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """A short random string of letters and spaces."""
        letters = np.array(list("abcdefghijklmnopqrstuvwxyz "))
        return "".join(self.np_random.choice(letters, size=int(self.np_random.integers(1, 24))))

    def contains(self, x: Any) -> bool:
        """Whether `x` is a string that is not too long."""
        return isinstance(x, str) and len(x) <= self.max_length

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnicodeText) and other.max_length == self.max_length

    def __hash__(self) -> int:
        return hash((type(self), self.max_length))

    def __repr__(self) -> str:
        return f"UnicodeText({self.max_length})"


class TextEnv(Guarded, gym.Env[str, str]):
    """A text environment. `reset(seed=s)` chooses task `s` and is deterministic; `info` carries:

    - after `reset`: `task_id` (str), and whatever else helps a reader;
    - after `step`: `success` (bool), and `tool_calls` (list of `ToolCall`) where there were any;
    - optionally, after `reset`, `task_type` (str), the kind of task, by which rates are told apart;
    - optionally, what a view (`view.py`) shows in places of its own: after `reset` `goal`, the task in words, and
      `instructions`, how to answer; after both `text`, the observation without those and without lists, `admissible` (list
      of str), the commands that are possible now, and `notes`, what else is worth showing now but not later; after `step`
      `command`, what the message was taken for. All but `admissible` are str. Without them the first observation is the
      task, and observations and messages are shown as they are.

    `success` is a statement about the episode so far, so the last one counts: what was reached at one step and lost at a
    later one is no success. A step without it leaves the last word standing, except that an end with a positive reward
    is a success.

    Subclasses need not look after the order of calls (see `guards.py`): a step before a reset, after the end of an episode or
    after `close` raises `gymnasium.error.ResetNeeded`, and a seed, an action or an option of a wrong type a `UserError`.
    """

    observation_space: gym.Space[str] = UnicodeText()
    action_space: gym.Space[str] = UnicodeText()
    system_prompt: str = ""

    def close(self) -> None:
        """End the episode; a reset begins another."""

    def task_seeds(self, split: str) -> Sequence[int]:
        """Seeds of the tasks in a split (`train`, `valid`, `test`); the splits are disjoint.

        Raises:
            UserError: when there is no such split.
        """
        ranges = {"train": range(0, 10_000), "valid": range(10_000, 10_200), "test": range(20_000, 20_500)}
        return pick_split(ranges, split, type(self).__name__)

    def expert_action(self) -> str | None:
        """What an expert would do in the present state, or None where there is no expert."""
        return None

    def plan(self) -> str | None:
        """A plan or solution for the present task, to be shown to a teacher with privileged context, or None."""
        return None

    def run_metadata(self) -> dict[str, Any]:
        """What a run records of this environment beside its id and options, as JSON takes it: a sandbox's capabilities, say.

        Under `files` are fingerprints by name; a resumed run says which are others than before.
        """
        return {}


def pick_split(splits: Mapping[str, Sequence[int]], split: str, owner: str) -> Sequence[int]:
    """`splits[split]`, or a `UserError` that names the nearest split there is."""
    if split not in splits:
        raise UserError(f"{owner} has no split '{split}'{nearest(split, splits)}")
    return splits[split]


@dataclass(slots=True)
class Answer:
    """What an environment answered to `reset` or `step`.

    Attributes:
        success: its word on the episode so far; None where it said nothing.
        goal, instructions, text, admissible, notes, command: see `TextEnv`; None where it gave none.
        seconds: wall time it took; no part of what it said, so answers are equal without it.
    """

    observation: str
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    success: bool | None = None
    task_id: str = ""
    task_type: str = ""
    tool_calls: list[ToolCall] | None = None
    goal: str | None = None
    instructions: str | None = None
    text: str | None = None
    admissible: list[str] | None = None
    notes: str | None = None
    command: str | None = None
    seconds: float = field(default=0.0, compare=False)

    @property
    def bare(self) -> str:
        """The observation without goal, instructions and lists, as far as the environment tells it apart."""
        return self.observation if self.text is None else self.text


def reset(env: gym.Env[str, str], seed: int) -> Answer:
    """Start task `seed`.

    Raises:
        EnvironmentFault: when the environment raises or answers anything but `(text, dict)`, or the dict has something else
            where `TextEnv` says text or a list of texts.
    """
    with blame(_name(env), f"reset(seed={seed})"):
        observation, info = _parts(env.reset(seed=seed), "observation", "info")
        return Answer(
            require_text(observation, "the observation"),
            task_id=require_text(str(_info(info).get("task_id", seed)), "info['task_id']"),
            task_type=require_text(info.get("task_type", ""), "info['task_type']"),
            **_shown(info, "goal", "instructions", "text", "notes"),
        )


def step(env: gym.Env[str, str], action: str) -> Answer:
    """Take one action.

    Raises:
        EnvironmentFault: when the environment raises, or answers anything but `(text, finite reward, bool, bool, dict)`, with
            a bool under `success`, a list of `ToolCall` under `tool_calls`, and what `TextEnv` says, if there are any.
    """
    said = repr(action[:80]) if isinstance(action, str) else one_line(repr(action), 80)
    with blame(_name(env), f"step({said})"):
        names = ("observation", "reward", "terminated", "truncated", "info")
        observation, reward, terminated, truncated, info = _parts(env.step(action), *names)
        answer = Answer(
            require_text(observation, "the observation"), float(reward),
            _flag(terminated, "terminated"), _flag(truncated, "truncated"),
            tool_calls=_tool_calls(_info(info).get("tool_calls")), **_shown(info, "text", "notes", "command"),
        )  # fmt: skip
        if not math.isfinite(answer.reward):
            raise Breach(f"the reward is {answer.reward}")
        if "success" in info:
            answer.success = _flag(info["success"], "info['success']")
        elif answer.terminated and answer.reward > 0:
            answer.success = True
        return answer


def _flag(value: object, name: str) -> bool:
    """A truth value; NaN, a share of 0.3 and the text 'False' are true to Python, and would be counted as won."""
    if isinstance(value, bool | np.bool_) or (isinstance(value, int | float | np.number) and value in (0, 1)):
        return bool(value)
    raise Breach(f"{name} is {value!r}, which is neither true nor false")


def system_prompt(env: gym.Env[str, str]) -> str:
    """The environment's system prompt, or an empty string.

    Raises:
        EnvironmentFault: when it is no text.
    """
    with blame(_name(env), "system_prompt"):
        prompt = getattr(env.unwrapped, "system_prompt", None)
        return "" if prompt is None else require_text(prompt, "it")


def task_seeds(env: gym.Env[str, str], split: str) -> Sequence[int]:
    """Seeds of a split; an environment without `task_seeds` gets `TextEnv`'s default ranges.

    Raises:
        UserError: when there is no such split, or whatever sentence the environment has for the user.
        EnvironmentFault: when it raises anything else, or gives no whole numbers.
    """
    with blame(_name(env), f"task_seeds({split!r})", passing=UserError):
        own = getattr(env.unwrapped, "task_seeds", None)
        seeds: Any = own(split) if own is not None else TextEnv.task_seeds(env.unwrapped, split)  # type: ignore[arg-type]
        if isinstance(seeds, str) or not isinstance(seeds, Iterable):
            raise Breach(f"it returned a value of type {type(seeds).__name__}, not a sequence of whole numbers")
        return [_whole(seed) for seed in seeds]


def splits(env: gym.Env[str, str]) -> dict[str, Sequence[int]]:
    """The task splits there are, of the three usual names; raises an `EnvironmentFault` as `task_seeds` does."""
    found: dict[str, Sequence[int]] = {}
    for name in ("train", "valid", "test"):
        try:
            found[name] = task_seeds(env, name)
        except EnvironmentFault:
            raise
        except UserError:
            found[name] = []
    return found


def expert_action(env: gym.Env[str, str]) -> str | None:
    """The expert's action in the present state, or None where there is no expert.

    Raises:
        EnvironmentFault: when the environment raises, or answers neither text nor None.
    """
    return _text_or_none(env, "expert_action")


def plan(env: gym.Env[str, str]) -> str | None:
    """The plan a teacher with privileged context is shown, or None; raises as `expert_action` does."""
    return _text_or_none(env, "plan")


def run_metadata(env: gym.Env[str, str]) -> dict[str, Any]:
    """What the environment would have a run record; raises an `EnvironmentFault` when it raises."""
    with blame(_name(env), "run_metadata()"):
        own = getattr(env.unwrapped, "run_metadata", None)
        return {} if own is None else dict(own())


def random_action(env: gym.Env[str, str], rng: random.Random) -> str:
    """A random action in the present state, of an environment that has `random_action`; raises as `expert_action` does."""
    with blame(_name(env), "random_action(rng)"):
        return require_text(env.unwrapped.random_action(rng), "the action")  # type: ignore[attr-defined]


def _text_or_none(env: gym.Env[str, str], method: str) -> str | None:
    with blame(_name(env), f"{method}()"):
        own = getattr(env.unwrapped, method, None)
        said = None if own is None else own()
        return None if said is None else require_text(said, "the answer")


def _name(env: gym.Env[str, str]) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def _parts(answer: object, *names: str) -> tuple[Any, ...]:
    if not isinstance(answer, tuple | list) or len(answer) != len(names):
        said = f"{len(answer)} values" if isinstance(answer, tuple | list) else f"a value of type {type(answer).__name__}"
        raise Breach(f"it returned {said}, not the {len(names)} values {', '.join(names)}")
    return tuple(answer)


def _info(info: object) -> Mapping[str, Any]:
    if not isinstance(info, Mapping):
        raise Breach(f"info is of type {type(info).__name__}, not a dict")
    return info


def _shown(info: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """What the environment gave for a view to show; `admissible`, and the texts of these names."""
    out: dict[str, Any] = {name: require_text(info[name], f"info['{name}']") for name in names if info.get(name) is not None}
    if (commands := info.get("admissible")) is not None:
        if not isinstance(commands, list | tuple):
            raise Breach(f"info['admissible'] is of type {type(commands).__name__}, not a list of strings")
        out["admissible"] = [require_text(command, "a command in info['admissible']") for command in commands]
    return out


def _tool_calls(calls: object) -> list[ToolCall] | None:
    if calls is None:
        return None
    if not isinstance(calls, list | tuple):
        raise Breach(f"info['tool_calls'] is of type {type(calls).__name__}, not a list of ToolCall")
    for call in calls:
        if not isinstance(call, ToolCall):
            raise Breach(f"info['tool_calls'] holds a value of type {type(call).__name__}, not a ToolCall")
        for name, kind in (("name", str), ("arguments", dict), ("result", str), ("ok", bool)):
            if not isinstance(value := getattr(call, name), kind):
                raise Breach(
                    f"a ToolCall in info['tool_calls'] has a {name} of type {type(value).__name__}, not {kind.__name__}"
                )
    return list(calls)


_SEEDS = 1 << 63


def _whole(seed: object) -> int:
    try:
        number = operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        raise Breach(f"the seed {one_line(repr(seed), 80)} is of type {type(seed).__name__}, not a whole number") from None
    if not 0 <= number < _SEEDS:
        raise Breach(f"the seed {one_line(str(number), 80)} is not between 0 and 2^63, as Gymnasium and the store take them")
    return number
