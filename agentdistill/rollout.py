"""The episode loop: Sampler × environments → trajectories.

All episodes of a batch take their turns together: one call of the sampler for everybody who is still playing, one step of
every environment, and the bridge to the next prompt.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentdistill.chat import Chat
from agentdistill.context import Context
from agentdistill.errors import UserError
from agentdistill.policies.base import Request, Sample, Sampler, SamplingParams
from agentdistill.pool import Answer, EnvironmentFault, EnvPool, Question
from agentdistill.seeds import derive
from agentdistill.trajectory import Author, StopReason, Trajectory, Turn
from agentdistill.verbs import callable_as_verb
from agentdistill.view import CHAT, View, opening

Overflow = Literal["end", "window"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds an episode.

    Attributes:
        max_turns: messages an episode may have.
        max_context: tokens a context may have, the message being sampled included.
        overflow: of a view that extends one context: `end` the episode with PROMPT_OVERFLOW when the next prompt leaves no
            room, or `window` the context.
        window: turns kept when the context is windowed (the task is always repeated).
        view: how what happened so far is shown; an episode ends with PROMPT_OVERFLOW when no form of it leaves room.
    """

    max_turns: int = 30
    max_context: int = 2048
    overflow: Overflow = "end"
    window: int = 2
    view: View = CHAT


@dataclass(frozen=True, slots=True)
class Task:
    """One episode to roll out.

    Attributes:
        seed: the environment's seed, which names the task.
        sample_seed: randomness of the student's sampling.
        group: rollouts of one task share it.
        max_turns: cut after this many turns, by the curriculum (None: no cut).
        prefix: replayed in front, without loss: an expert's actions, or turns of an episode that this one branches from.
        without_expert: the schedule asked for an expert's episode, and the task has none.
        own_turns: turns behind the prefix that the student plays before the partner takes over (None: all).
    """

    seed: int
    sample_seed: int
    group: int = 0
    max_turns: int | None = None
    prefix: Sequence[str | Turn] = ()
    without_expert: bool = False
    own_turns: int | None = None


@dataclass(slots=True)
class Clock:
    """Seconds spent by phase."""

    generate: float = 0.0
    environment: float = 0.0


@dataclass(slots=True)
class Episode:
    """An episode in play: the trajectory so far, and the live context."""

    slot: int
    task: Task
    trajectory: Trajectory
    context: Context
    over: bool = False

    @property
    def handed_over(self) -> bool:
        """Whether the student has played the turns that are its own."""
        own = self.task.own_turns
        return own is not None and len(self.trajectory.turns) >= self.trajectory.prefix_turns + own


class RolloutStopped(Exception):
    """The rollout was told to stop before its episodes were over."""


class Rollout:
    """Rolls out batches of tasks.

    Args:
        pool: environments.
        sampler: the policy; its state for an episode is released when the episode ends.
        chat: the policy's chat format.
        limits: what bounds an episode.
        privileged: render each fresh prompt a second time with the environment's plan in it, for a teacher that may see it.
        partner: goes on where a task's `own_turns` are played, in the student's context; of the same vocabulary.

    Attributes:
        clock: seconds spent, added up until somebody resets it.
        stopped: another thread sets it to end `run` with `RolloutStopped` after the turn that is being played.
    """

    def __init__(
        self, pool: EnvPool, sampler: Sampler, chat: Chat, limits: Limits, *,
        privileged: bool = False, partner: Sampler | None = None,
    ) -> None:  # fmt: skip
        self.pool, self.sampler, self.chat, self.limits, self.privileged = pool, sampler, chat, limits, privileged
        self.partner = partner
        self.clock = Clock()
        self.stopped = False

    def run(self, tasks: Sequence[Task], params: SamplingParams, batch: str) -> list[Trajectory]:
        """Play every task to its end; trajectories come in the order of the tasks, ids are `<batch>/<index>`."""
        if self.partner is None and any(task.own_turns is not None for task in tasks):
            raise UserError("a task is to be handed over to a partner after the student's own turns, and the rollout has none")
        self.sampler.release()
        episodes = self._open(tasks, params, batch)
        self._replay(episodes)
        self._go_on(episodes, params)
        self.sampler.release()
        if self.partner is not None:
            self.partner.release()
        self.pool.release(range(len(episodes)))
        return [e.trajectory for e in episodes]

    def _open(self, tasks: Sequence[Task], params: SamplingParams, batch: str) -> list[Episode]:
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

    def _opened(self, slot: int, task: Task, params: SamplingParams, batch: str, answers: Sequence[Any]) -> Episode:
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
        limits = self.limits
        window = limits.window if limits.overflow == "window" else None
        context = Context(self.chat, limits.view, limits.max_context, window)
        episode = Episode(slot, task, trajectory, context)
        for answer in answers:
            if isinstance(answer, EnvironmentFault):
                return self._fault(episode, answer)
        first, system, *plan = answers
        context.plan = plan[0] if plan else None
        trajectory.task_id, trajectory.task_type = first.task_id, first.task_type
        trajectory.messages = opening(system, first.observation)
        return self._shown(episode, context.begin(system, first))

    def _replay(self, episodes: Sequence[Episode]) -> None:
        """Play what the tasks have in front."""
        for turn in range(max((len(e.task.prefix) for e in episodes), default=0)):
            live = [e for e in episodes if not e.over and turn < len(e.task.prefix)]
            shown: dict[Author, list[tuple[Episode, Sample, str]]] = {"expert": [], "earlier": []}
            for episode in live:
                said = episode.task.prefix[turn]
                if isinstance(said, Turn):
                    shown["earlier"].append((episode, Sample(self._as_sampled(said), [], [], "replayed"), said.action))
                else:
                    shown["expert"].append((episode, Sample(self.chat.message_ids(said), [], [], "replayed"), said))
            for author, moves in shown.items():
                self._play(moves, author, 0.0)
            for episode in live:
                episode.trajectory.prefix_turns = len(episode.trajectory.turns)

    def _as_sampled(self, said: Turn) -> list[int]:
        """The ids of a stored message, encoded anew only where they mean another text to this policy's tokenizer."""
        known = max(said.action_ids, default=0) < len(self.chat.tokenizer)
        same = known and self.chat.decode(said.action_ids) == said.action
        return list(said.action_ids) if same else self.chat.message_ids(said.action)

    def _go_on(self, episodes: Sequence[Episode], params: SamplingParams) -> None:
        """Play everybody to the end, turn by turn."""
        while playing := [e for e in episodes if not e.over]:
            self._turn(playing, params)
            self._check_stopped()

    def _check_stopped(self) -> None:
        if self.stopped:
            raise RolloutStopped

    def _turn(self, playing: list[Episode], params: SamplingParams) -> None:
        """One message of everybody who is playing: the student's, and the partner's where it has taken over."""
        own, handed = [e for e in playing if not e.handed_over], [e for e in playing if e.handed_over]
        if own:
            self._sample(self.sampler, "student", own, params)
        if handed and self.partner is not None:
            self._sample(self.partner, "teacher", handed, params)

    def _sample(self, sampler: Sampler, author: Author, playing: list[Episode], params: SamplingParams) -> None:
        started = time.perf_counter()
        requests = [self._request(e) for e in playing]
        samples = sampler.generate(requests, params)
        spent = time.perf_counter() - started
        self.clock.generate += spent
        moves = [(e, sample, self.chat.decode(sample.ids)) for e, sample in zip(playing, samples, strict=True)]
        self._play(moves, author, spent / len(playing))
        sampler.release([e.slot for e in playing if e.over or (author == "student" and e.handed_over)])

    def _request(self, episode: Episode) -> Request:
        """The next message of an episode."""
        context = episode.context.ids
        return Request(
            key=episode.slot,
            context=context,
            seed=derive(episode.task.sample_seed, len(episode.trajectory.turns)),
            stop_ids=self.chat.stop_ids,
            max_tokens=self.limits.max_context - len(context),
        )

    def _play(self, moves: Sequence[tuple[Episode, Sample, str]], author: Author, seconds: float) -> None:
        """Hand everybody's message to the environments and record the turns."""
        answers = self._ask([Question(episode.slot, "step", (action,)) for episode, _, action in moves])
        for (episode, sample, action), answer in zip(moves, answers, strict=True):
            self._take(episode, sample, action, author, seconds, answer)

    def _ask(self, questions: Sequence[Question]) -> list[Any]:
        started = time.perf_counter()
        answers = self.pool.ask(questions)
        self.clock.environment += time.perf_counter() - started
        return answers

    def _take(
        self, episode: Episode, sample: Sample, action: str, author: Author, seconds: float, answer: Answer | EnvironmentFault
    ) -> None:
        """Record a turn, or the fault that ends the episode."""
        if isinstance(answer, EnvironmentFault):
            self._fault(episode, answer)
            return
        context = episode.context
        turn = Turn(
            prompt_ids=context.prompt.ids,
            fresh=context.prompt.fresh,
            teacher_prompt_ids=context.teacher_prompt,
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
        reason = self._ended(episode, answer)
        if reason is not None:
            episode.over, episode.trajectory.stop_reason = True, reason
        else:
            self._shown(episode, context.extend(sample.ids, action, answer))

    def _ended(self, episode: Episode, answer: Answer) -> StopReason | None:
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

    @staticmethod
    def _shown(episode: Episode, fits: bool) -> Episode:
        """Take note of how the next prompt was shown; the episode ends where it leaves no room for a message."""
        episode.trajectory.windowed = episode.context.windowed
        if not fits:
            episode.over, episode.trajectory.stop_reason = True, StopReason.PROMPT_OVERFLOW
        return episode

    @staticmethod
    def _fault(episode: Episode, fault: EnvironmentFault) -> Episode:
        episode.over, episode.trajectory.success = True, False
        episode.trajectory.stop_reason, episode.trajectory.error = StopReason.ENV_ERROR, str(fault)
        return episode


callable_as_verb(__name__)
