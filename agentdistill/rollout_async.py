"""The episode loop in which nobody waits for anybody: each episode takes its turns at its own pace.

A message joins the sampler's batch as soon as its prompt is there and leaves it with its last token; environments step in
their processes meanwhile. So an environment that takes seconds a step delays its own episode only. A sample still depends on
its seed and context alone. But who shares a batch with whom now depends on how fast environments are, and matrix products of
other sizes round differently: log-probabilities differ from run to run in their last digits, and so may, rarely, a token.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from agentdistill.chat import Chat
from agentdistill.errors import UserError
from agentdistill.policies.base import ContinuousSampler, Sample, Sampler, SamplingParams
from agentdistill.pool import EnvPool, Question
from agentdistill.rollout import Episode, Limits, Rollout


class AsyncRollout(Rollout):
    """`Rollout` whose episodes do not take their turns together; its arguments and results are those of `Rollout`.

    Raises:
        UserError: where environments are in this process, or the sampler does not take requests up one by one.
    """

    def __init__(self, pool: EnvPool, sampler: Sampler, chat: Chat, limits: Limits, *, privileged: bool = False) -> None:
        super().__init__(pool, sampler, chat, limits, privileged=privileged)
        if not pool.away:
            raise UserError(
                "asynchronous rollouts need environments in worker processes, since a step in this one would stop the sampler; "
                "set env.workers to the number of episodes that are played at once"
            )
        if not isinstance(sampler, ContinuousSampler):
            raise UserError(f"sampler '{sampler.name}' takes whole batches only; set engine.async_rollouts to false")
        self._continuous: ContinuousSampler = sampler

    def _go_on(self, episodes: Sequence[Episode], params: SamplingParams) -> None:
        """Play everybody to the end."""
        begun: dict[int, float] = {}  # by slot: when the message that is being sampled was
        said: dict[int, tuple[Sample, str, float]] = {}  # by slot: the message that the environment is to answer
        ready = [episode for episode in episodes if not episode.over]
        while ready or begun or said:
            started = time.perf_counter()
            if ready:
                begun |= {episode.slot: started for episode in ready}
                self._continuous.begin([self._request(episode) for episode in ready], params)
            for request, sample in self._continuous.advance():
                action = self.chat.decode(sample.ids)
                said[request.key] = (sample, action, time.perf_counter() - begun.pop(request.key))
                self.pool.put([Question(request.key, "step", (action,))])
            sampled = time.perf_counter()
            self._check_stopped()
            answers = self.pool.collect(wait=not begun) if said else []
            self.clock.generate += sampled - started
            self.clock.environment += time.perf_counter() - sampled
            ready = []
            for slot, answer in answers:
                episode, (sample, action, seconds) = episodes[slot], said.pop(slot)
                self._take(episode, sample, action, "student", seconds, answer)
                if episode.over:
                    self.sampler.release([slot])
                else:
                    ready.append(episode)
