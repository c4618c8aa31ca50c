"""The episode loop: Sampler × environments → trajectories.

All episodes of a batch take their turns together: one call of the sampler for everybody who is still playing, one step of
every environment, and the bridge to the next prompt.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agentdistill.chat import Chat, Prompt
from agentdistill.policies.base import Request, Sample, Sampler, SamplingParams
from agentdistill.pool import Answer, EnvironmentFault, EnvPool, Question
from agentdistill.seeds import derive
from agentdistill.trajectory import Author, StopReason, Trajectory, Turn
from agentdistill.verbs import callable_as_verb

Overflow = Literal["end", "window"]
PLAN_INTRO = "A plan that solves this task (only you can see it):"


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds an episode.

    Attributes:
        max_turns: messages an episode may have.
        max_context: tokens a context may have, the message being sampled included.
        overflow: `end` the episode with PROMPT_OVERFLOW when the next prompt leaves no room, or `window` the context.
        window: turns kept when the context is windowed (the task is always repeated).
    """

    max_turns: int = 30
    max_context: int = 2048
    overflow: Overflow = "end"
    window: int = 2


@dataclass(frozen=True, slots=True)
class Task:
    """One episode to roll out.

    Attributes:
        seed: the environment's seed, which names the task.
        sample_seed: randomness of the student's sampling.
        group: rollouts of one task share it.
        max_turns: cut after this many turns, by the curriculum (None: no cut).
        prefix: expert actions replayed in front, without loss.
        without_expert: the schedule asked for an expert's episode, and the task has none.
    """

    seed: int
    sample_seed: int
    group: int = 0
    max_turns: int | None = None
    prefix: Sequence[str] = ()
    without_expert: bool = False


@dataclass(slots=True)
class Clock:
    """Seconds spent by phase."""

    generate: float = 0.0
    environment: float = 0.0


@dataclass(slots=True)
class _Episode:
    """An episode in play: the trajectory so far, the conversation as text, and the live context as ids."""

    slot: int
    task: Task
    trajectory: Trajectory
    messages: list[dict[str, str]]
    context: list[int] = field(default_factory=list)
    prompt: Prompt | None = None
    teacher_prompt: list[int] | None = None
    plan: str | None = None
    over: bool = False


class Rollout:
    """Rolls out batches of tasks.

    Args:
        pool: environments.
        sampler: the policy; its state for an episode is released when the episode ends.
        chat: the policy's chat format.
        limits: what bounds an episode.
        privileged: render each fresh prompt a second time with the environment's plan in it, for a teacher that may see it.
    """

    def __init__(self, pool: EnvPool, sampler: Sampler, chat: Chat, limits: Limits, *, privileged: bool = False) -> None:
        self.pool, self.sampler, self.chat, self.limits, self.privileged = pool, sampler, chat, limits, privileged
        self.clock = Clock()

    def run(self, tasks: Sequence[Task], params: SamplingParams, batch: str) -> list[Trajectory]:
        """Play every task to its end; trajectories come in the order of the tasks, ids are `<batch>/<index>`."""
        self.sampler.release()
        episodes = self._open(tasks, params, batch)
        self._replay(episodes)
        while playing := [e for e in episodes if not e.over]:
            self._turn(playing, params)
        self.sampler.release()
        return [e.trajectory for e in episodes]

    def _open(self, tasks: Sequence[Task], params: SamplingParams, batch: str) -> list[_Episode]:
        """Start every task."""
        calls = ("system_prompt", "plan") if self.privileged else ("system_prompt",)
        questions = []
        for slot, task in enumerate(tasks):
            questions += [Question(slot, "reset", (task.seed,)), *(Question(slot, call) for call in calls)]
        answers = self._ask(questions)
        width = 1 + len(calls)
        return [
            self._opened(slot, task, params, batch, answers[width * slot : width * (slot + 1)])
            for slot, task in enumerate(tasks)
        ]

    def _opened(self, slot: int, task: Task, params: SamplingParams, batch: str, answers: Sequence[Any]) -> _Episode:
        trajectory = Trajectory(
            id=f"{batch}/{slot:04d}",
            env_id=self.pool.env_id,
            env_options=dict(self.pool.options),
            seed=task.seed,
            task_id="",
            messages=[],
            turns=[],
            stop_reason=StopReason.MAX_TURNS,
            policy=self.sampler.name,
            policy_version=self.sampler.version,
            temperature=params.temperature,
            group=task.group,
        )
        episode = _Episode(slot, task, trajectory, [])
        for answer in answers:
            if isinstance(answer, EnvironmentFault):
                return self._fault(episode, answer)
        first, system, *plan = answers
        episode.messages = opening(system, first.observation)
        episode.plan = plan[0] if plan else None
        trajectory.task_id, trajectory.messages = first.task_id, list(episode.messages)
        if self._too_long(*(m["content"] for m in episode.messages)):
            return self._overflow(episode)
        self._show(episode, Prompt(self.chat.start(episode.messages), fresh=True))
        return episode

    def _replay(self, episodes: Sequence[_Episode]) -> None:
        """Play the expert's actions that the tasks have in front."""
        for turn in range(max((len(e.task.prefix) for e in episodes), default=0)):
            moves = []
            for episode in (e for e in episodes if not e.over and turn < len(e.task.prefix)):
                action = episode.task.prefix[turn]
                moves.append((episode, Sample(self.chat.message_ids(action), [], [], "replayed"), action))
            self._play(moves, "expert", 0.0)
            for episode, _, _ in moves:
                episode.trajectory.prefix_turns = len(episode.trajectory.turns)

    def _turn(self, playing: list[_Episode], params: SamplingParams) -> None:
        started = time.perf_counter()
        requests = [
            Request(
                key=e.slot,
                context=e.context,
                seed=derive(e.task.sample_seed, len(e.trajectory.turns)),
                stop_ids=self.chat.stop_ids,
                max_tokens=self.limits.max_context - len(e.context),
            )
            for e in playing
        ]
        samples = self.sampler.generate(requests, params)
        spent = time.perf_counter() - started
        self.clock.generate += spent
        moves = [(e, sample, self.chat.decode(sample.ids)) for e, sample in zip(playing, samples, strict=True)]
        self._play(moves, "student", spent / len(playing))
        self.sampler.release([e.slot for e in playing if e.over])

    def _play(self, moves: Sequence[tuple[_Episode, Sample, str]], author: Author, seconds: float) -> None:
        """Hand everybody's message to the environments and record the turns."""
        answers = self._ask([Question(episode.slot, "step", (action,)) for episode, _, action in moves])
        for (episode, sample, action), answer in zip(moves, answers, strict=True):
            if isinstance(answer, EnvironmentFault):
                self._fault(episode, answer)
            else:
                self._record(episode, sample, action, author, seconds, answer)

    def _ask(self, questions: Sequence[Question]) -> list[Any]:
        started = time.perf_counter()
        answers = self.pool.ask(questions)
        self.clock.environment += time.perf_counter() - started
        return answers

    def _record(self, episode: _Episode, sample: Sample, action: str, author: Author, seconds: float, answer: Answer) -> None:
        prompt = episode.prompt
        assert prompt is not None  # an episode in play always has a prompt waiting for its message
        turn = Turn(
            prompt_ids=prompt.ids,
            fresh=prompt.fresh,
            teacher_prompt_ids=episode.teacher_prompt,
            action_ids=sample.ids,
            action=action,
            logprobs=sample.logprobs,
            logprobs_t1=sample.logprobs_t1,
            author=author,
            finish=sample.finish,
            observation=answer.observation,
            reward=answer.reward,
            terminated=answer.terminated,
            truncated=answer.truncated,
            tool_calls=answer.tool_calls or [],
            sample_seconds=seconds,
            env_seconds=answer.seconds,
        )
        episode.trajectory.turns.append(turn)
        if answer.success is not None:
            episode.trajectory.success = answer.success
        episode.context = [*episode.context, *sample.ids]
        episode.messages.append({"role": "assistant", "content": action})
        reason = self._ended(episode, answer)
        if reason is not None:
            episode.over, episode.trajectory.stop_reason = True, reason
        elif self._too_long(answer.observation):
            self._overflow(episode)
        else:
            bridge = self.chat.bridge(episode.messages, sample.ids, answer.observation)
            episode.messages.append({"role": "user", "content": answer.observation})
            self._show(episode, bridge)

    def _ended(self, episode: _Episode, answer: Answer) -> StopReason | None:
        played = len(episode.trajectory.turns)
        if answer.terminated:
            return StopReason.TERMINATED
        if answer.truncated:
            return StopReason.TRUNCATED
        if played >= self.limits.max_turns:
            return StopReason.MAX_TURNS
        if episode.task.max_turns is not None and played >= episode.task.max_turns:
            return StopReason.DEPTH
        return None

    def _show(self, episode: _Episode, prompt: Prompt) -> None:
        """Put a prompt into the context; window it or end the episode where it leaves no room for a message."""
        room = self.limits.max_context - 1
        shown = episode.messages
        if len(prompt.ids) + (0 if prompt.fresh else len(episode.context)) > room:
            if self.limits.overflow == "window":
                shown = windowed(episode.messages, self.limits.window)
                prompt = Prompt(self.chat.start(shown), fresh=True)
            if self.limits.overflow == "end" or len(prompt.ids) > room:
                self._overflow(episode)
                return
            episode.trajectory.windowed += 1
        episode.prompt = prompt
        episode.context = [*([] if prompt.fresh else episode.context), *prompt.ids]
        episode.teacher_prompt = None
        if prompt.fresh and episode.plan is not None:
            episode.teacher_prompt = self.chat.start(with_plan(shown, episode.plan))

    def _too_long(self, *texts: str) -> bool:
        """Whether texts that every context of the episode would hold leave no room, told without encoding megabytes."""
        return any(self.chat.surely_longer(text, self.limits.max_context - 1) for text in texts)

    @staticmethod
    def _overflow(episode: _Episode) -> _Episode:
        episode.over, episode.trajectory.stop_reason = True, StopReason.PROMPT_OVERFLOW
        return episode

    @staticmethod
    def _fault(episode: _Episode, fault: EnvironmentFault) -> _Episode:
        episode.over, episode.trajectory.success = True, False
        episode.trajectory.stop_reason, episode.trajectory.error = StopReason.ENV_ERROR, str(fault)
        return episode


def opening(system: str, observation: str) -> list[dict[str, str]]:
    """The messages an episode starts with."""
    first = {"role": "user", "content": observation}
    return [{"role": "system", "content": system}, first] if system else [first]


def windowed(messages: Sequence[dict[str, str]], turns: int) -> list[dict[str, str]]:
    """The system message and the task, then the last `turns` (action, observation) pairs."""
    head = 2 if messages[0]["role"] == "system" else 1
    tail = messages[head:]
    return [*messages[:head], *tail[max(0, len(tail) - 2 * turns) :]]


def with_plan(messages: Sequence[Mapping[str, str]], plan: str) -> list[dict[str, Any]]:
    """The messages with the plan under the task, as a teacher with privileged context sees them."""
    out = [dict(m) for m in messages]
    first = next(m for m in out if m["role"] == "user")
    first["content"] = f"{first['content']}\n\n{PLAN_INTRO}\n{plan}"
    return out


callable_as_verb(__name__)
