"""Environments in worker processes: asked side by side, each process able to die alone.

A worker is replaced by a new one when it dies, when a call takes too long (it is killed), and when it has played enough
episodes. What its other episodes were is not lost: their questions since the reset are asked again in the new process when
the next one comes, and must have the same answers, as they do in an environment that is deterministic. So the rollout
never notices, and what a student has said stays as it was sampled. An episode in which a worker dies `DEATHS` times at one
question, or whose call takes too long, is at fault itself.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentdistill.environment import EnvironmentFault
from agentdistill.errors import UserError
from agentdistill.pool_handover import hand_over
from agentdistill.pool_local import Question
from agentdistill.pool_process import WorkerGone, WorkerProcess, readable

DEATHS = 3
STARTS = 5  # failures to start, one after another, that are taken for chance
START_TIMEOUT = 300.0
_MIB = 1 << 20
_NAP = 0.0005
_UNRECORDED = ("run_metadata", "system_prompt")  # they change nothing, and are no part of an episode


class EnvironmentTimeout(EnvironmentFault):
    """A call that took longer than `Workers.timeout`."""


@dataclass(frozen=True, slots=True)
class Workers:
    """How environments are put into processes.

    Attributes:
        count: processes.
        timeout: seconds of wall time that one call may take.
        recycle: episodes after which a process is replaced, before the next batch; 0: never.
        memory: MiB of resident memory beyond which it is, on Linux; 0: no bound.
        modules: what processes import first, by name or `.py` file, beside the module that registers the environment.
    """

    count: int
    timeout: float = 300.0
    recycle: int = 0
    memory: int = 0
    modules: Sequence[str] = ()


@dataclass(slots=True, eq=False)
class _Job:
    """A question on its way: where its answer goes (None: nowhere), and what must be asked again before it."""

    question: Question
    index: int | None
    past: Sequence[tuple[Question, Any]] = ()
    asked: int = 0  # how much of the past has had its answer
    deaths: int = 0
    done: bool = False

    @property
    def now(self) -> Question:
        """What is being asked."""
        return self.past[self.asked][0] if self.asked < len(self.past) else self.question


@dataclass(slots=True)
class _Seat:
    """The place of one process and its successors."""

    queue: deque[_Job] = field(default_factory=deque)
    process: WorkerProcess | None = None
    sent: deque[_Job] = field(default_factory=deque)  # whose answers are to come: a job for each
    deadline: float = 0.0
    current: set[int] = field(default_factory=set)  # slots whose episode this process has brought to the present
    failed_starts: int = 0


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
    def processes(self) -> list[WorkerProcess]:
        """The processes there are."""
        return [seat.process for seat in self._seats if seat.process is not None]

    def ask_all(self, questions: Sequence[Question]) -> list[Any]:
        """As `LocalEnvironments.ask_all`.

        Raises:
            UserError: when an environment cannot be made, or no process can be started.
        """
        self._packed = self._packed or hand_over(self.env_id, self.options, self.workers.modules)
        answers: list[Any] = [None] * len(questions)
        self._place([q.slot for q in questions if q.call == "reset"])
        for index, question in enumerate(questions):
            self._seat(question.slot).queue.append(_Job(question, index))
        try:
            while busy := [seat for seat in self._seats if seat.queue or seat.sent]:
                for seat in busy:
                    if not seat.sent:
                        self._send(seat, answers)
                self._hear(busy, answers)
        finally:
            for seat in self._seats:  # where this was cut short, an answer may still come and be taken for another's
                if seat.queue or seat.sent:
                    self._stop(seat)
                    seat.queue.clear()
        return answers

    def close(self) -> list[str]:
        """End every process; a sentence for each environment that failed in closing."""
        said, self._complaints = self._complaints + _closed(self.processes), []
        for seat in self._seats:
            self._stop(seat)
        self._past.clear()
        return said

    def _seat(self, slot: int) -> _Seat:
        return self._home.setdefault(slot, self._seats[slot % len(self._seats)])

    def _place(self, starting: Sequence[int]) -> None:
        """Give the slots that start an episode to the seats, in blocks: neighbours are often rollouts of one task, which is
        loaded once where they share a process."""
        for place, slot in enumerate(starting):
            old = self._seat(slot)
            new = self._seats[place * len(self._seats) // len(starting)] if len(starting) > 1 else old
            if new is not old and old.process is not None:
                old.queue.append(_Job(Question(slot, "free"), None))
                old.current.discard(slot)
            self._home[slot] = new
        homes = {id(seat): seat for seat in map(self._seat, starting)}.values()
        worn = [seat for seat in homes if seat.process is not None and self._worn(seat.process)]
        self._complaints += _closed([seat.process for seat in worn if seat.process is not None])
        for seat in worn:
            self._stop(seat)

    def _worn(self, process: WorkerProcess) -> bool:
        recycle, memory = self.workers.recycle, self.workers.memory
        return bool((recycle and process.episodes >= recycle) or (memory and process.resident > memory * _MIB))

    def _send(self, seat: _Seat, answers: list[Any]) -> None:
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
                self._died(seat, answers)

    def _start(self, seat: _Seat) -> None:
        try:
            seat.process = WorkerProcess(self._packed)
        except (OSError, RuntimeError, WorkerGone) as error:
            self._failed_start(seat, f"{type(error).__name__}: {error}")
        seat.deadline = time.monotonic() + START_TIMEOUT

    def _hear(self, busy: Sequence[_Seat], answers: list[Any]) -> None:
        """Wait for something to happen, and take what has."""
        seats = [(seat, seat.process) for seat in busy if seat.process is not None]
        if any(len(seat.sent) > 1 for seat in busy):
            time.sleep(_NAP)  # answers then come several at a time, and this process takes less of what the workers run on
        if seats:
            readable([process for _, process in seats], min(seat.deadline for seat, _ in seats) - time.monotonic())
        for seat, process in seats:
            try:
                messages = process.receive()
            except WorkerGone:
                self._died(seat, answers)
                continue
            for kind, said in messages:
                self._heard(seat, kind, said, answers)
            now = time.monotonic()
            if messages:
                seat.deadline = now + self.workers.timeout
            elif now > seat.deadline:
                self._late(seat, answers)

    def _heard(self, seat: _Seat, kind: str, said: Any, answers: list[Any]) -> None:
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
            self._lost(seat, job, EnvironmentFault(said), answers)
        elif job.asked == len(job.past):
            self._answered(seat, job, said, answers)
        elif said == job.past[job.asked][1]:
            job.asked += 1
        else:
            reason = f"{_named(job.now)} had another answer when the episode was played again in a new worker process"
            fault = EnvironmentFault(f"environment '{self.env_id}' is not deterministic: {reason}")
            self._lost(seat, job, fault, answers)

    def _answered(self, seat: _Seat, job: _Job, answer: Any, answers: list[Any]) -> None:
        seat.queue.remove(job)
        job.done = True
        if job.index is None:
            return
        question, slot = job.question, job.question.slot
        answers[job.index] = answer
        if question.call == "reset":
            self._past[slot] = []
        if slot in self._past:
            seat.current.add(slot)
            if question.call not in _UNRECORDED:
                self._past[slot].append((question, answer))

    def _lost(self, seat: _Seat, job: _Job, fault: EnvironmentFault, answers: list[Any]) -> None:
        """A job's episode is at fault; so are the questions that follow it in this batch."""
        slot = job.question.slot
        self._past.pop(slot, None)
        seat.current.discard(slot)
        for each in seat.queue:
            if each.question.slot == slot and each.index is not None:
                answers[each.index], each.done = fault, True
        seat.queue = deque(each for each in seat.queue if each.question.slot != slot)

    def _died(self, seat: _Seat, answers: list[Any]) -> None:
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
                self._lost(seat, job, fault, answers)

    def _late(self, seat: _Seat, answers: list[Any]) -> None:
        assert seat.process is not None
        ready, job = seat.process.ready, next(iter(seat.sent), None)
        self._stop(seat)
        if not ready:
            self._failed_start(seat, f"it was not ready after {START_TIMEOUT:g} s")
        elif job is not None and not job.done:
            said = f"no answer within {self.workers.timeout:g} s (env.timeout), so its worker process was killed"
            fault = EnvironmentTimeout(f"environment '{self.env_id}' timed out in {_named(job.now)}: {said}")
            self._lost(seat, job, fault, answers)

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


def _closed(processes: Sequence[WorkerProcess]) -> list[str]:
    """End processes, all at the same time; what they said."""
    for process in processes:
        process.hang_up()
    return [sentence for process in processes for sentence in process.close()]


def _named(question: Question) -> str:
    """A call as faults name it."""
    if question.call == "reset":
        return f"reset(seed={question.arguments[0]})"
    return f"step({question.arguments[0][:80]!r})" if question.call == "step" else f"{question.call}()"
