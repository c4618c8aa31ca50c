"""The runner, its frames and the host's side of a call, over plain subprocesses: what holds on every backend."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.tools.sandbox import frames, runner
from agentdistill.tools.sandbox.base import Limits, SandboxError, Status
from agentdistill.tools.sandbox.output import Kept
from agentdistill.tools.sandbox.slots import Slots
from agentdistill.tools.sandbox.unsafe import UnsafeSandbox

LIMITS = Limits(
    cpu_seconds=1.0, wall_seconds=10.0, output_bytes=1000, output_kill_bytes=100_000, session_memory_bytes=300 << 20
)
CALL = b"12345678"


@pytest.fixture(scope="module")
def sandbox():
    made = UnsafeSandbox(LIMITS)
    yield made
    made.close()


@pytest.fixture
def session(sandbox):
    made = sandbox.open()
    yield made
    made.close()


def test_names_persist_from_call_to_call_and_the_last_expression_is_the_value(session):
    assert session.run("import math\nx = 5").value is None
    assert session.run("x += 1\nmath.floor(x / 4)").value == "1"
    assert session.run("print('a'); 'b'").value == "'b'"


def test_two_sessions_share_nothing(sandbox, session):
    session.run("x = 1")
    other = sandbox.open()
    assert other.run("x").error == "NameError: name 'x' is not defined"
    other.close()


def test_functions_see_the_names_of_later_calls_and_can_be_pickled_by_main(session):
    session.run("def f(): return g()")
    session.run("def g(): return __name__")
    assert session.run("import pickle; pickle.loads(pickle.dumps(f))()").value == "'__main__'"


@pytest.mark.parametrize(
    ("source", "status", "error"),
    [
        ("1/0", Status.ERROR, "ZeroDivisionError: division by zero"),
        ("raise KeyboardInterrupt", Status.ERROR, "KeyboardInterrupt"),
        ("class A:\n def __repr__(self): raise KeyboardInterrupt\nA()", Status.ERROR, "KeyboardInterrupt"),
        ("class E(Exception):\n def __str__(self): raise ValueError\nraise E", Status.ERROR, "E: <exception str() failed>"),
        ("raise MemoryError", Status.MEMORY, "MemoryError"),
        ("import sys; sys.exit(0)", Status.EXIT, "exit code 0"),
        ("import sys; sys.exit('sorry')", Status.EXIT, "exit code 1"),
        ("def f(:", Status.ERROR, "SyntaxError: invalid syntax"),
        ("a\0b", Status.ERROR, "SyntaxError: source code string cannot contain null bytes"),
        ("(" * 5000, Status.ERROR, "SyntaxError: too many nested parentheses"),
        ("-" * 50_000 + "1", Status.ERROR, "SyntaxError: the source is nested too deeply"),
        ("10**5000", Status.ERROR, "ValueError: Exceeds the limit (4300 digits)"),
        ("'\ud800'", Status.ERROR, "SyntaxError: 'utf-8' codec can't encode character"),
        ("input()", Status.ERROR, "EOFError"),
    ],
)
def test_what_python_survives_keeps_the_session(session, source, status, error):
    session.run("kept = 1")
    result = session.run(source)
    assert result.status is status
    assert result.error.startswith(error)
    assert not result.state_lost
    assert session.run("kept").value == "1"


@pytest.mark.parametrize(
    ("source", "status", "error"),
    [
        ("import os; os._exit(0)", Status.CRASHED, "the interpreter died: it exited with code 0"),
        ("import ctypes; ctypes.string_at(0)", Status.CRASHED, "the interpreter died: it was killed by signal 11 (SIGSEGV)"),
        ("import os; os.closerange(3, 4096)", Status.CRASHED, "the interpreter died"),
        ("while True: pass", Status.TIMEOUT, "stopped after 1 s of CPU time"),
        ("while True: print('x' * 100)", Status.OUTPUT_LIMIT, "stopped after writing more than 100000 bytes"),
        ("x = []\nwhile True: x.append(bytearray(1 << 20))", Status.MEMORY, "stopped at 3"),
    ],
)
def test_what_kills_the_interpreter_loses_the_state_and_nothing_else(session, source, status, error):
    session.run("lost = 1")
    result = session.run("print('partial')\n" + source)
    assert result.status is status
    assert result.error.startswith(error)
    assert result.state_lost
    assert result.stdout.startswith("partial\n")
    assert session.run("'lost' in globals()").value == "False"


def test_a_call_may_lower_time_limits_but_not_raise_them(session):
    assert session.run("import time; time.sleep(60)", Limits(wall_seconds=0.2)).error == "stopped after 0.2 s"
    assert session.run("while True: pass", Limits(cpu_seconds=60)).error == "stopped after 1 s of CPU time"


def test_cpu_time_of_children_counts(session):
    source = "import os\nfor _ in range(3):\n if not os.fork():\n  while True: pass\nos.wait()"
    assert session.run(source).error == "stopped after 1 s of CPU time"


def test_a_long_source_is_refused_before_it_is_sent(session):
    session.run("kept = 1")
    result = session.run("#" * (LIMITS.source_bytes + 1))
    assert result.status is Status.ERROR
    assert result.error == "the source has 262145 bytes; at most 262144 are accepted"
    assert session.run("kept").value == "1"


def test_a_source_as_long_as_it_may_be_runs(session):
    assert session.run("x = 7 #" + "é" * ((LIMITS.source_bytes - 12) // 2) + "\nx").value == "7"


def test_output_keeps_its_beginning_and_end_and_counts_the_rest(session):
    result = session.run("print('a' * 5000 + 'z' * 5000)")
    assert result.truncated
    assert result.stdout == "a" * 750 + "\n[… 9001 bytes left out …]\n" + "z" * 249 + "\n"


def test_stdout_and_stderr_are_apart_and_odd_bytes_become_escapes(session):
    result = session.run("import os, sys; print('é\\ud800'); sys.stderr.write('e'); os.write(1, b'\\xff\\0')")
    assert (result.stdout, result.stderr) == ("é\\ud800\n\\xff\0", "e")


def test_a_value_is_cut_to_its_limit(sandbox):
    session = sandbox.open(replace(LIMITS, repr_chars=10))
    assert session.run("'x' * 100").value == "'xxxxxxxx…"
    assert session.run("'\U0001f600' * 8").value == "'" + "\U0001f600" * 8 + "'"
    session.close()


def test_a_traceback_shows_the_sources_lines_and_no_frame_of_the_runner(session):
    stderr = session.run("def f():\n    raise ValueError('v')\nf()").stderr
    assert stderr == (
        "Traceback (most recent call last):\n"
        '  File "<cell 1>", line 3, in <module>\n    f()\n'
        "  File \"<cell 1>\", line 2, in f\n    raise ValueError('v')\n"
        "ValueError: v\n"
    )


def test_a_chain_of_causes_is_shown_and_bounded(session):
    assert "direct cause" in session.run("try: 1/0\nexcept Exception as e: raise KeyError(1) from e").stderr
    long = session.run("e = None\nfor i in range(20000):\n n = ValueError(i); n.__cause__ = e; e = n\nraise e")
    assert long.error == "ValueError: 19999"
    assert long.stderr.count("direct cause") == runner.CHAIN - 1


def test_a_deep_recursions_traceback_is_bounded(session):
    result = session.run("def f(): f()\nf()")
    assert result.error.startswith("RecursionError")
    assert result.stderr.count("\n") < 4 * runner.FRAMES


def test_replaced_builtins_and_streams_do_not_mute_the_next_call(session):
    session.run("import builtins, sys\nfor n in ('print', 'repr', 'max', 'bytes'): setattr(builtins, n, None)")
    session.run("import sys, io; sys.stdout = io.StringIO()")
    result = session.run("sys.stdout.write('seen')\n'value'")
    assert (result.status, result.stdout, result.value) == (Status.OK, "seen", "'value'")


def test_a_fork_that_reaches_the_end_of_the_source_ends_there(session):
    result = session.run("import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint(pid > 0)")
    assert result.status is Status.OK
    assert sorted(result.stdout.split()) == ["False", "True"]


def test_what_a_thread_prints_after_its_call_belongs_to_no_call(session):
    session.run(
        "import threading, time, os\nend = threading.Event()\n"
        "def late():\n time.sleep(0.05); print('late'); end.set()\n"
        "threading.Thread(target=late).start()"
    )
    threading.Event().wait(0.3)
    assert session.run("end.wait(5); print('own')").stdout == "own\n"


def test_threads_are_stopped_between_calls_for_memory(sandbox):
    session = sandbox.open()
    session.run(
        "import threading, time\ndef grow():\n global held\n time.sleep(0.2); held = b'x' * (400 << 20)\n time.sleep(60)"
    )
    session.run("threading.Thread(target=grow).start()")
    threading.Event().wait(2.0)
    result = session.run("1")
    assert result.status is Status.MEMORY
    assert result.error.endswith("between two calls, so that this one did not run")
    assert session.run("1").value == "1"
    session.close()


SEND = """
import os, socket, struct, sys
for fd in sorted(map(int, os.listdir('/proc/self/fd'))):
    try: socket.socket(fileno=os.dup(fd)); break
    except OSError: pass
frame = sys._getframe()
while "call" not in frame.f_locals: frame = frame.f_back
call = frame.f_locals["call"]
def done(call, payload=bytes([0, 1]) + struct.pack("<I", 1) + b"9"):
    os.write(fd, struct.pack("<I8sB", len(payload), call, 3) + payload)
"""


@pytest.mark.parametrize(
    "attack",
    [
        "os.write(fd, b'junk junk junk junk')",
        "done(bytes(8))",
        "done(call, b'')",
        "done(call, bytes([9, 0, 0, 0, 0, 0]))",
        "done(call, bytes([0, 0]) + struct.pack('<I', 1 << 30))",
        "os.write(fd, struct.pack('<I8sB', 1 << 31, call, 3))",
        "os.write(fd, struct.pack('<I8sB', 0, call, 2))",
        "os.write(fd, 2 * (struct.pack('<I8sB', 6, call, 3) + bytes(6)))",
    ],
)
def test_forged_frames_end_the_session_as_protocol_errors(session, attack):
    result = session.run(f"{SEND}\n{attack}")
    assert result.status is Status.PROTOCOL_ERROR
    assert result.state_lost
    assert session.run("1").value == "1"


def test_a_forged_answer_is_found_out_by_the_next_call(session):
    first = session.run(f"{SEND}\ndone(call); import time; time.sleep(0.2)")
    if first.status is not Status.PROTOCOL_ERROR:
        assert first.value == "9"
        threading.Event().wait(0.5)
        assert session.run("1").status is Status.PROTOCOL_ERROR


def test_waiting_for_a_core_is_not_wall_time():
    sandbox = UnsafeSandbox(replace(LIMITS, wall_seconds=1.0))
    sandbox._slots = Slots(1)
    sessions = [sandbox.open() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda each: each.run("import time; time.sleep(0.5)"), sessions))
    assert [result.status for result in results] == [Status.OK] * 4
    sandbox.close()


def test_closing_while_a_call_runs_ends_it_as_our_doing(sandbox):
    session = sandbox.open()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(session.run, "import time; time.sleep(60)")
        threading.Event().wait(0.3)
        session.close()
        result = running.result(timeout=10)
    assert result.status is Status.SANDBOX_ERROR
    assert session.run("1").status is Status.SANDBOX_ERROR


def test_a_closed_sandbox_opens_nothing():
    sandbox = UnsafeSandbox()
    sandbox.close()
    with pytest.raises(SandboxError, match="closed"):
        sandbox.open()


def test_a_failed_start_is_repeated_and_a_call_without_state_too(sandbox):
    session = sandbox.open()
    session.run("1")
    start, failures = session._start, iter([1, 1])

    def failing(limits):
        if next(failures, None):
            raise SandboxError("no luck")
        return start(limits)

    session._start = failing
    session._lose()
    assert session.run("2").value == "2"
    session.close()


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_are_a_frame_or_a_protocol_error(data, size):
    inbox = frames.Inbox(100)
    try:
        for start in range(0, len(data), size):
            inbox.feed(data[start : start + size])
            frame = inbox.take()
            if frame is not None:
                frames.parse_done(frame, CALL, 20)
    except frames.ProtocolError:
        return


@given(st.binary(max_size=60))
def test_any_payload_is_an_answer_within_its_limits_or_a_protocol_error(payload):
    try:
        done = frames.parse_done((CALL, runner.DONE, payload), CALL, 5)
    except frames.ProtocolError:
        return
    assert len(done.value or "") <= 5
    assert done.status in {Status.OK, Status.ERROR, Status.EXIT, Status.MEMORY}


@given(st.lists(st.binary(max_size=40)), st.integers(4, 64))
def test_what_is_kept_is_within_its_limit_and_nothing_is_lost_below_it(chunks, limit):
    kept = Kept(limit)
    for chunk in chunks:
        kept.add(chunk)
    whole = b"".join(chunks)
    assert len(kept._head) + len(kept._tail) <= limit
    assert kept.total == len(whole)
    assert kept.truncated == (len(whole) > limit)
    if not kept.truncated:
        assert kept.text() == whole.decode("utf-8", "backslashreplace")


@given(st.text(min_size=30, max_size=80), st.integers(8, 25))
def test_a_cut_leaves_no_half_characters(text, limit):
    kept = Kept(limit)
    kept.add(text.encode())
    if kept.truncated and "\\" not in text:
        assert "\\x" not in kept.text()


@pytest.mark.parametrize("descriptor", [1, 2])
def test_a_call_that_closes_an_output_loses_its_interpreter_and_not_the_prints_of_later_calls(session, descriptor):
    result = session.run(f"import os\nos.close({descriptor})\n1")
    assert (result.status, result.state_lost) == (Status.CRASHED, True)
    after = session.run("import sys; print('out'); print('err', file=sys.stderr)")
    assert (after.status, after.stdout, after.stderr) == (Status.OK, "out\n", "err\n")


def test_an_output_that_leads_elsewhere_for_a_while_is_no_loss(session):
    source = "import os\nkept = os.dup(1)\nos.dup2(os.open('/dev/null', os.O_WRONLY), 1)\nprint('unseen')"
    assert not session.run(source).state_lost
    assert session.run("n = os.dup2(kept, 1)\nprint('seen')").stdout == "seen\n"
