"""Environments in worker processes: asked side by side, each process able to die alone.

A worker is replaced by a new one when it dies, when a call takes too long (it is killed), and when it has played enough
episodes. What its other episodes were is not lost: their questions since the reset are asked again in the new process when
the next one comes, and must have the same answers, as they do in an environment that is deterministic. So the rollout
never notices, and what a student has said stays as it was sampled. An episode in which a worker dies `DEATHS` times at one
question, or is too long over it `DELAYS` times, is at fault itself.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentdistill.environment import EnvironmentFault
from agentdistill.errors import UserError
from agentdistill.pool_deal import Deal
from agentdistill.pool_handover import hand_over
from agentdistill.pool_local import Question
from agentdistill.pool_process import Worker, WorkerGone, WorkerProcess, readable

DEATHS = 3
DELAYS = 2  # a stopped process, or a machine that was suspended, is late once; a call that never ends, again
STARTS = 5  # failures to start, one after another, that are taken for chance
START_TIMEOUT = 300.0
_MIB = 1 << 20
_NAP = 0.005
_UNRECORDED = ("run_metadata", "system_prompt")  # they change nothing, and are no part of an episode


class EnvironmentTimeout(EnvironmentFault):
    """A call that took longer than `Workers.timeout`, `DELAYS` times."""


@dataclass(frozen=True, slots=True)
class Workers:
    """How environments are put into processes.

    Attributes:
        count: processes.
        timeout: seconds of wall time that one call may take; beyond, its process is killed and it is asked again, once.
        recycle: episodes after which a process is replaced, before the next batch or episode of a `converse`; 0: never.
        memory: MiB that it and what it has started may use, on Linux (see `WorkerProcess.memory`); it is replaced beyond; 0: no
            bound.
        modules: what processes import first, by name or `.py` file, beside the module that registers the environment.
        start: makes a worker of what `hand_over` packed: a process of this machine, or one that somebody else has a place for.
    """

    count: int
    timeout: float = 300.0
    recycle: int = 0
    memory: int = 0
    modules: Sequence[str] = ()
    start: Callable[[bytes], Worker] = WorkerProcess


@dataclass(slots=True, eq=False)
class _Job:
    """A question on its way: where its answer goes (None: nowhere), and what must be asked again before it."""

    question: Question
    index: int | None
    past: Sequence[tuple[Question, Any]] = ()
    asked: int = 0  # how much of the past has had its answer
    deaths: int = 0
    delays: int = 0
    done: bool = False

    @property
    def now(self) -> Question:
        """What is being asked."""
        return self.past[self.asked][0] if self.asked < len(self.past) else self.question


@dataclass(slots=True, eq=False)
class _Seat:
    """The place of one process and its successors."""

    queue: deque[_Job] = field(default_factory=deque)
    process: Worker | None = None
    sent: deque[_Job] = field(default_factory=deque)  # whose answers are to come: a job for each
    deadline: float = 0.0
    current: set[int] = field(default_factory=set)  # slots whose episode this process has brought to the present
    failed_starts: int = 0
    look: bool = False  # whether to see if the process is worn, when it starts an episode
    pace: float = 0.0  # seconds a step, of late


@dataclass(slots=True)
class _Talk:
    """One batch: who takes an answer and may have a next question, and the episodes that no worker has started yet."""

    take: Callable[[int, Any], Question | None]
    deal: Deal
    starting: dict[int, list[_Job]]
    goes_on: bool  # whether answers lead to further questions


class WorkerEnvironments:
    """Environments in slots of worker processes, with the answers of `LocalEnvironments`.

    Args:
        env_id: registered Gymnasium id.
        options: keyword arguments for the environment.
        workers: how many processes, and their limits.
    """

    def __init__(self, env_id: str, options: Mapping[str, Any], workers: Workers) -> None:
        self.env_id, self.options, self.workers = env_id, dict(options), workers
        self._packed = b""
        self._seats = [_Seat() for _ in range(workers.count)]
        self._home: dict[int, _Seat] = {}
        self._complaints: list[str] = []  # of environments that failed in closing
        self._past: dict[int, list[tuple[Question, Any]]] = {}  # by slot: questions and answers since its reset

    @property
    def processes(self) -> list[Worker]:
        """The processes there are."""
        return [seat.process for seat in self._seats if seat.process is not None]

    def ask_all(self, questions: Sequence[Question]) -> list[Any]:
        """As `LocalEnvironments.ask_all`.

        Raises:
            UserError: when an environment cannot be made, or no process can be started.
        """
        answers: list[Any] = [None] * len(questions)
        self._talk(questions, answers.__setitem__, goes_on=False)
        return answers

    def converse(self, questions: Sequence[Question], take: Callable[[int, Any], Question | None]) -> None:
        """As `LocalEnvironments.converse`, each conversation at its own pace; raises as `ask_all` does."""
        self._talk(questions, take, goes_on=True)

    def _talk(self, questions: Sequence[Question], take: Callable[[int, Any], Question | None], *, goes_on: bool) -> None:
        self._packed = self._packed or hand_over(self.env_id, self.options, self.workers.modules)
        starts = {question.slot: question.arguments for question in questions if question.call == "reset"}
        if len(starts) == 1:  # that one stays where it is
            starts.clear()
        talk = _Talk(take, Deal(list(starts.items()), len(self._seats)), {slot: [] for slot in starts}, goes_on)
        for index, question in enumerate(questions):
            there = talk.starting.get(question.slot)
            (self._seat(question.slot).queue if there is None else there).append(_Job(question, index))
        for seat in self._seats:
            seat.look = True
        with self._whole():
            while self._round(talk):
                pass

    def put(self, questions: Sequence[Question]) -> None:
        """Ask questions whose answers `collect` gives, of episodes that have begun; nothing is waited for.

        Raises:
            UserError: as `ask_all` does.
        """
        for question in questions:
            self._seat(question.slot).queue.append(_Job(question, question.slot))
        with self._whole():
            self._send_waiting(_Talk(lambda slot, answer: None, Deal([], len(self._seats)), {}, goes_on=True))

    def collect(self, *, wait: bool) -> list[tuple[int, Any]]:
        """Slots and answers, as `ask_all` would give them, of questions that were `put`: all that are here.

        Args:
            wait: until there is one at least, if there is any to come.
        """
        answers: list[tuple[int, Any]] = []
        talk = _Talk(lambda slot, answer: answers.append((slot, answer)), Deal([], len(self._seats)), {}, goes_on=True)
        with self._whole():
            while self._round(talk, wait=wait) and wait and not answers:
                pass
        return answers

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Where this is cut short, an answer may still come and be taken for another's, so what is busy then is stopped."""
        try:
            yield
        except BaseException:
            for seat in self._seats:
                if seat.queue or seat.sent:
                    self._stop(seat)
                    seat.queue.clear()
            raise

    def _round(self, talk: _Talk, *, wait: bool = True) -> bool:
        """Send what can be sent and take what has come; False where there is nothing left to wait for."""
        self._send_waiting(talk)
        busy = [seat for seat in self._seats if seat.queue or seat.sent]
        if busy:
            self._hear(busy, talk, wait)
        return bool(busy)

    def _send_waiting(self, talk: _Talk) -> None:
        idle = [seat for seat in self._seats if not seat.sent]
        for seat in idle:
            self._deal(seat, talk)
        self._renew(idle)
        for seat in idle:
            if seat.queue:
                self._send(seat, talk)

    def release(self, slots: Collection[int]) -> None:
        """Forget the episodes of slots of which nothing more is asked until their next reset."""
        for slot in slots:
            self._past.pop(slot, None)

    def close(self) -> list[str]:
        """End every process; a sentence for each environment that failed in closing."""
        said, self._complaints = self._complaints + _closed(self.processes), []
        for seat in self._seats:
            self._stop(seat)
        self._past.clear()
        return said

    def _seat(self, slot: int) -> _Seat:
        return self._home.setdefault(slot, self._seats[slot % len(self._seats)])

    def _deal(self, seat: _Seat, talk: _Talk) -> None:
        """Give a seat that has nothing to do some of the episodes that wait."""
        if seat.queue and (seat.process is None or not seat.process.ready):
            return
        for slot in talk.deal.take(self._seats.index(seat)):
            old = self._seat(slot)
            if old is not seat and old.process is not None:
                old.queue.append(_Job(Question(slot, "free"), None))
                old.current.discard(slot)
            self._home[slot] = seat
            seat.queue += talk.starting.pop(slot)

    def _renew(self, idle: Sequence[_Seat]) -> None:
        """End worn processes that are to start an episode, before the first of a batch and between two that follow each other;
        what else such a process holds is played again."""
        starting = [seat for seat in idle if seat.look and any(job.question.call == "reset" for job in seat.queue)]
        for seat in starting:
            seat.look = False
        worn = [seat for seat in starting if seat.process is not None and self._worn(seat.process)]
        self._complaints += _closed([seat.process for seat in worn if seat.process is not None])
        for seat in worn:
            self._stop(seat)

    def _worn(self, process: Worker) -> bool:
        recycle, memory = self.workers.recycle, self.workers.memory
        return bool((recycle and process.episodes >= recycle) or (memory and process.memory > memory * _MIB))

    def _send(self, seat: _Seat, talk: _Talk) -> None:
        """Send what is waiting, in a process that is started first where there is none."""
        if seat.process is None:
            self._start(seat)
        elif seat.process.ready:
            known = set(seat.current)
            questions = []
            for job in seat.queue:
                slot, fresh = job.question.slot, job.question.call in ("reset", "free")
                job.past, job.asked = () if fresh or slot in known else tuple(self._past.get(slot, ())), 0
                questions += [*(question for question, _ in job.past), job.question]
                seat.sent += [job] * (len(job.past) + 1)
                known.add(slot)
            seat.deadline = time.monotonic() + self.workers.timeout
            try:
                seat.process.ask(questions)
            except WorkerGone:
                seat.sent.clear()  # no question is to blame
                self._died(seat, talk)

    def _start(self, seat: _Seat) -> None:
        try:
            seat.process = self.workers.start(self._packed)
        except (OSError, RuntimeError, WorkerGone) as error:
            self._failed_start(seat, f"{type(error).__name__}: {error}")
        seat.deadline = time.monotonic() + START_TIMEOUT

    def _hear(self, busy: Sequence[_Seat], talk: _Talk, wait: bool) -> None:
        """Wait for something to happen, if that is wanted, and take what has."""
        seats = [(seat, seat.process) for seat in busy if seat.process is not None]
        waiting = bool(talk.starting) or talk.goes_on
        # Answers then come several at a time, and this process takes less of what the workers run on.
        if wait:
            time.sleep(min(_NAP, (min if waiting else max)(seat.pace * max(len(seat.sent) - 1, 0) / 2 for seat in busy)))
        if seats:
            left = min(seat.deadline for seat, _ in seats) - time.monotonic()
            readable([process for _, process in seats], left if wait else 0)
        for seat, process in seats:
            try:
                messages = process.receive()
            except WorkerGone:
                self._died(seat, talk)
                continue
            for kind, said in messages:
                self._heard(seat, kind, said, talk)
            now = time.monotonic()
            if messages:
                seat.deadline = now + self.workers.timeout
            elif now > seat.deadline:
                self._late(seat, talk)

    def _heard(self, seat: _Seat, kind: str, said: Any, talk: _Talk) -> None:
        assert seat.process is not None
        if kind == "refused":
            raise UserError(said)
        if kind == "ready":
            seat.process.ready, seat.failed_starts = True, 0
            return
        job = seat.sent.popleft()
        if job.done:
            return
        if kind == "fault":
            self._lost(seat, job, EnvironmentFault(said), talk)
        elif job.asked == len(job.past):
            self._answered(seat, job, said, talk)
        elif said == job.past[job.asked][1]:
            job.asked += 1
        else:
            reason = f"{_named(job.now)} had another answer when the episode was played again in a new worker process"
            fault = EnvironmentFault(f"environment '{self.env_id}' is not deterministic: {reason}")
            self._lost(seat, job, fault, talk)

    def _answered(self, seat: _Seat, job: _Job, answer: Any, talk: _Talk) -> None:
        seat.queue.remove(job)
        job.done = True
        if job.index is None:
            return
        question, slot = job.question, job.question.slot
        if question.call == "reset":
            self._past[slot] = []
        if question.call == "step":
            seat.pace += (answer.seconds - seat.pace) / 8
        if slot in self._past:
            seat.current.add(slot)
            if question.call not in _UNRECORDED:
                self._past[slot].append((question, answer))
        self._take(seat, job.index, answer, talk)

    @staticmethod
    def _take(seat: _Seat, index: int, answer: Any, talk: _Talk) -> None:
        """Hand an answer on; what is asked next of that slot waits behind the others."""
        if (following := talk.take(index, answer)) is not None:
            seat.look = seat.look or following.call == "reset"
            seat.queue.append(_Job(following, index))

    def _lost(self, seat: _Seat, job: _Job, fault: EnvironmentFault, talk: _Talk) -> None:
        """A job's episode is at fault; so are the questions that follow it in this batch."""
        slot = job.question.slot
        self._past.pop(slot, None)
        seat.current.discard(slot)
        lost = [each for each in seat.queue if each.question.slot == slot]
        seat.queue = deque(each for each in seat.queue if each.question.slot != slot)
        for each in lost:
            each.done = True
            if each.index is not None:
                self._take(seat, each.index, fault, talk)

    def _died(self, seat: _Seat, talk: _Talk) -> None:
        assert seat.process is not None
        ready, job = seat.process.ready, next(iter(seat.sent), None)
        how = self._stop(seat)
        if not ready:
            self._failed_start(seat, how)
        elif job is not None and not job.done:
            job.deaths += 1
            if job.deaths >= DEATHS:
                where = f"environment '{self.env_id}' failed in {_named(job.now)}"
                fault = EnvironmentFault(f"{where}: its worker process died {DEATHS} times ({how})")
                self._lost(seat, job, fault, talk)

    def _late(self, seat: _Seat, talk: _Talk) -> None:
        assert seat.process is not None
        ready, job = seat.process.ready, next(iter(seat.sent), None)
        self._stop(seat)
        if not ready:
            self._failed_start(seat, f"it was not ready after {START_TIMEOUT:g} s")
        elif job is not None and not job.done:
            job.delays += 1
            if job.delays < DELAYS:
                return
            said = f"no answer within {self.workers.timeout:g} s (env.timeout), {DELAYS} times; its worker process was killed"
            fault = EnvironmentTimeout(f"environment '{self.env_id}' timed out in {_named(job.now)}: {said}")
            self._lost(seat, job, fault, talk)

    def _failed_start(self, seat: _Seat, how: str) -> None:
        seat.failed_starts += 1
        if seat.failed_starts >= STARTS:
            seat.failed_starts = 0
            raise UserError(f"worker processes of environment '{self.env_id}' cannot be started: {how}; set env.workers to 0")

    @staticmethod
    def _stop(seat: _Seat) -> str:
        """Kill the process, if there is one; how it ended."""
        process, seat.process = seat.process, None
        seat.current.clear()
        seat.sent.clear()
        seat.queue = deque(job for job in seat.queue if job.index is not None)
        return process.kill() if process is not None else ""


def _closed(processes: Sequence[Worker]) -> list[str]:
    """End processes, all at the same time; what they said."""
    for process in processes:
        process.hang_up()
    return [sentence for process in processes for sentence in process.close()]


def _named(question: Question) -> str:
    """A call as faults name it."""
    if question.call == "reset":
        return f"reset(seed={question.arguments[0]})"
    return f"step({question.arguments[0][:80]!r})" if question.call == "step" else f"{question.call}()"
