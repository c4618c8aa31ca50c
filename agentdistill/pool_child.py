"""What a worker process of an `EnvPool` runs: environments in slots, asked over a socket.

Questions come as lists. One is read whole before it is answered, so that the two sides never wait for each other to read.
Each answer is sent at once: so the parent knows at which question a call hangs or the process ends. A message is its length
in eight bytes and a pickle. Answers are text, numbers and `ToolCall`s that environment code made; what a model writes is run
in sandboxes (`tools/sandbox`), never here.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import struct
import sys
from typing import BinaryIO

from agentdistill import child
from agentdistill.environment import EnvironmentFault
from agentdistill.errors import UserError
from agentdistill.faults import described
from agentdistill.pool_handover import take_over
from agentdistill.pool_local import LocalEnvironments, Question

LENGTH = struct.Struct("<Q")
CODE = "from agentdistill.pool_child import serve; serve()"


def serve() -> None:
    """Answer until the link ends, which is how a worker is told to close its environments."""
    number, parent = map(int, sys.argv[1:])
    if not child.end_with(parent):
        return
    with socket.socket(fileno=number) as link, contextlib.suppress(ConnectionError):  # the parent may be gone at any moment
        link.set_inheritable(False)
        _serve(link, link.makefile("rb"))


def _serve(link: socket.socket, stream: BinaryIO) -> None:
    if (packed := _read(stream)) is None:
        return
    try:
        held = LocalEnvironments(*take_over(packed))
    except (Exception, SystemExit) as error:
        _send(link, pickle.dumps(("refused", described(error))))
        return
    _send(link, pickle.dumps(("ready", None)))
    while (message := _read(stream)) is not None:
        lost: dict[int, bytes] = {}
        for question in pickle.loads(message):
            if question.slot not in lost:
                answer, fault = _answer(held, question)
                if fault:  # nothing more is asked of that slot
                    lost[question.slot] = answer
            _send(link, lost.get(question.slot, answer))
    _send(link, pickle.dumps(("closed", held.close())))


def _answer(held: LocalEnvironments, question: Question) -> tuple[bytes, bool]:
    """A message with the answer, and whether that is a fault."""
    try:
        if question.call == "free":
            held.free(question.slot)
            return pickle.dumps(("answer", None)), False
        answer = held.ask(question)
    except EnvironmentFault as broken:
        return pickle.dumps(("fault", str(broken))), True
    except UserError as error:
        return pickle.dumps(("refused", str(error))), False
    try:
        return pickle.dumps(("answer", answer)), False
    except Exception as error:
        reason = f"its answer cannot leave the worker process: {described(error)}"
        return pickle.dumps(("fault", f"environment '{held.env_id}' failed in {question.call}(): {reason}")), True


def _send(link: socket.socket, data: bytes) -> None:
    link.sendall(LENGTH.pack(len(data)) + data)


def _read(stream: BinaryIO) -> bytes | None:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    data = stream.read(size)
    return data if len(data) == size else None
