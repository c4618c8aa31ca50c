"""The process that runs model-written source: a loop that reads a frame, executes it, and answers with a frame.

It runs inside a sandbox and imports only the standard library, so that it works as a module (`serve(3)`), as a file
(`python -I -S runner.py 3`) and as text (`python -I -S -c "$text" 3`). The host takes the wire format from here.

A frame is a header (payload length, call id, kind) and a payload:

    RUN    host → runner   u32 longest repr in characters, then the source in UTF-8 (surrogates passed)
    READY  runner → host   empty, id 0: the runner waits for its first call
    DONE   runner → host   outcome byte, flags byte, u32 length of the value, value in UTF-8, error line in UTF-8

Nothing here is trusted: source can reach every name in this process. What it could gain is to make its own answer wrong.
"""

import ast
import builtins
import functools
import io
import linecache
import os
import struct
import sys
import traceback
from types import CodeType, FrameType, ModuleType, TracebackType

# Functions take their built-ins from here, so that source which replaces `print` or `len` does not break the loop.
__builtins__ = dict(vars(builtins))  # type: ignore[assignment]

HEADER = struct.Struct("<I8sB")
LENGTH = struct.Struct("<I")
RUN, READY, DONE = 1, 2, 3
OUTCOMES = ("ok", "error", "exit", "memory")  # what DONE can claim; all else is seen by the host
HAS_VALUE = 1
NO_CALL = bytes(8)
ERROR_CHARS = 500
CHAIN = 4  # exceptions shown of a chain of causes
FRAMES = 24  # stack frames shown of each


class Hangup(Exception):
    """The host closed the control channel."""


def serve(source: int, sink: int | None = None) -> None:
    """Answer calls until the host hangs up; never returns.

    Args:
        source: descriptor of the control channel, read from.
        sink: where to write frames; the same descriptor unless given.
    """
    sink = source if sink is None else sink
    for descriptor in {source, sink}:
        os.set_inheritable(descriptor, False)
    owner = os.getpid()
    streams = _open_streams()
    main = ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main
    sys.argv = [""]
    code = 0
    try:
        _send(sink, NO_CALL, READY, b"")
        number = 0
        while True:
            number += 1
            call, payload = _receive(source)
            sys.stdin, sys.stdout, sys.stderr = streams  # a call that replaced them, and failed, would mute all later ones
            answer = _run(payload, main.__dict__, f"<cell {number}>")
            _flush()
            _insist_on_output()
            if os.getpid() != owner:  # source forked, and this is the child at the end of the source
                os._exit(0)
            _send(sink, call, DONE, answer)
    except (Hangup, OSError):
        pass
    except BaseException:
        code = 70
    finally:
        os._exit(code)  # no atexit handlers, no waiting for threads


def _open_streams() -> tuple[object, ...]:
    # Line buffering, so that what was printed before a kill is seen; escapes, so that lone surrogates can be printed.
    wrap = functools.partial(io.TextIOWrapper, encoding="utf-8", errors="backslashreplace", line_buffering=True)
    readable = wrap(io.BufferedReader(io.FileIO(0, closefd=False)))
    return readable, *(wrap(io.BufferedWriter(io.FileIO(descriptor, "wb", closefd=False))) for descriptor in (1, 2))


def _receive(source: int) -> tuple[bytes, bytes]:
    length, call, kind = HEADER.unpack(_read(source, HEADER.size))
    if kind != RUN:
        raise Hangup
    return call, _read(source, length)


def _read(source: int, length: int) -> bytes:
    parts = []
    while length:
        part = os.read(source, min(length, 1 << 20))
        if not part:
            raise Hangup
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _send(sink: int, call: bytes, kind: int, payload: bytes) -> None:
    data = HEADER.pack(len(payload), call, kind) + payload
    while data:
        data = data[os.write(sink, data) :]


def _run(payload: bytes, namespace: dict[str, object], name: str) -> bytes:
    """Execute a RUN payload and return a DONE payload."""
    longest = LENGTH.unpack_from(payload)[0]
    outcome, value, error = "ok", None, ""
    try:
        value = _execute(payload[LENGTH.size :].decode("utf-8", "surrogatepass"), namespace, name, longest)
    except SystemExit as exit_:
        outcome, error = "exit", _exit_line(exit_)
    except MemoryError as exception:
        outcome, error = "memory", _report(exception)
    except BaseException as exception:  # KeyboardInterrupt too: source may raise it
        outcome, error = "error", _report(exception)
    text = (value or "").encode("utf-8", "backslashreplace")
    head = bytes([OUTCOMES.index(outcome), HAS_VALUE if value is not None else 0])
    return head + LENGTH.pack(len(text)) + text + error.encode("utf-8", "backslashreplace")


def _execute(source: str, namespace: dict[str, object], name: str, longest: int) -> str | None:
    body, last = _compile(source, name)
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)  # tracebacks show the lines
    exec(body, namespace)
    if last is None:
        return None
    value = eval(last, namespace)
    if value is None:
        return None
    text = repr(value)
    return text if len(text) <= longest else text[: max(longest - 1, 0)] + "…"


def _compile(source: str, name: str) -> tuple[CodeType, CodeType | None]:
    """The source, and its last statement apart where that is an expression whose value is wanted."""
    try:
        tree = ast.parse(source, name)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = compile(ast.Expression(tree.body.pop().value), name, "eval", dont_inherit=True)  # type: ignore[attr-defined]
        return compile(tree, name, "exec", dont_inherit=True), last
    except (MemoryError, RecursionError):
        raise SyntaxError("the source is nested too deeply") from None
    except (ValueError, UnicodeError) as error:  # NUL, lone surrogates
        raise SyntaxError(str(error)) from None


def _exit_line(exit_: SystemExit) -> str:
    try:
        if exit_.code is None or isinstance(exit_.code, int):
            return f"exit code {int(exit_.code or 0)}"
        print(exit_.code, file=sys.stderr)
    except BaseException:
        return "exit code 1, and the message could not be printed"
    return "exit code 1"


def _report(exception: BaseException) -> str:
    """Print a bounded traceback to stderr and return its last line."""
    try:
        parts, line = [], ""
        for error, link in _chain(exception):
            block, line = _format(error)
            parts.append(f"{block}{link}")
        print("".join(parts), end="", file=sys.stderr)
        return line[:ERROR_CHARS]
    except BaseException:  # a __str__ that raises, a stderr that was closed, no memory left
        return type(exception).__name__[:ERROR_CHARS]


def _chain(exception: BaseException) -> "list[tuple[BaseException, str]]":
    """The exception and a few of its causes, oldest first, each with the sentence that leads to the next."""
    found: list[tuple[BaseException, str]] = [(exception, "")]
    while len(found) < CHAIN:
        newest = found[0][0]
        if newest.__cause__ is not None:
            found.insert(0, (newest.__cause__, "\nThe above exception was the direct cause of the following exception:\n\n"))
        elif newest.__context__ is not None and not newest.__suppress_context__:
            found.insert(0, (newest.__context__, "\nDuring handling of the above exception, another exception occurred:\n\n"))
        else:
            break
    return found


def _format(error: BaseException) -> tuple[str, str]:
    """One exception's traceback without its causes, and its last line."""
    cause, context, suppress = error.__cause__, error.__context__, error.__suppress_context__
    error.__cause__ = error.__context__ = None  # `traceback` would walk a chain of any length
    try:
        lines = traceback.format_exception_only(type(error), error)
    finally:
        error.__cause__, error.__context__, error.__suppress_context__ = cause, context, suppress
    frames = _frames(error.__traceback__)
    stack = (
        "".join(["Traceback (most recent call last):\n", *traceback.StackSummary.extract(iter(frames)).format()])
        if frames
        else ""
    )
    return stack + "".join(lines), (lines[-1] if lines else type(error).__name__).strip()


def _frames(link: TracebackType | None) -> "list[tuple[FrameType, int]]":
    """The last frames of a traceback, without those of this file."""
    frames = []
    while link is not None:
        if link.tb_frame.f_globals is not globals():
            frames.append((link.tb_frame, link.tb_lineno))
            del frames[: -2 * FRAMES]
        link = link.tb_next
    return frames[-FRAMES:]


def _insist_on_output() -> None:
    """Without stdout or stderr every later call would fail; the host starts another runner for one that ended.

    Raises:
        OSError: the source closed one of them.
    """
    for descriptor in (1, 2):
        os.fstat(descriptor)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # replaced or closed by the source
            continue


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:3]))
