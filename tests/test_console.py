"""Progress lines."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from agentdistill.console import Console, table


def test_a_sink_takes_the_lines_as_they_are() -> None:
    said: list[str] = []
    Console(said.append).say("[bold]success 5 % [1, 9]")
    assert said == ["[bold]success 5 % [1, 9]"]


def test_lines_are_printed_with_the_time_and_without_reading_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Console().say("success 50.0 % [23.7, 76.3] [red]" + "x" * 200)
    assert capsys.readouterr().out == "  0:00  success 50.0 % [23.7, 76.3] [red]" + "x" * 200 + "\n"


def test_a_table_in_a_pipe_is_a_line_a_row_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    table(("name", "what"), [("a", "x" * 200), ("longer [b]", "y")])
    assert capsys.readouterr().out.splitlines() == ["name        what", f"a           {'x' * 200}", "longer [b]  y"]


SCRIPT = """
import time
from agentdistill.console import Console
console = Console()
for n in range(1, 4):
    console.say(f"iteration {n}/3: success 50 % [red]")
    console.tick("distil", n, 3, f"success 50 %, KL 0.01{n}, 12{n} tok/s [red]")
    time.sleep(0.15)
console.close()
"""


def test_in_a_pipe_there_are_plain_lines_and_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.partition("  ")[2].partition("  ")[2] for line in lines] == [
        f"iteration {n}/3: success 50 % [red]" for n in (1, 2, 3)
    ]
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", done.stdout + done.stderr)


def test_in_a_terminal_a_live_line_stands_beneath_the_others_and_goes_at_the_end() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # what Linux says at the end
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    for n in (1, 2):
        assert re.search(rf"distil ━.* {n}/3 [-:\d]+ success 50 %, KL 0\.01{n}, 12{n} tok/s \[red\]", text)
    last = text.rpartition("tok/s [red]")[2]
    assert "\x1b[2K" in last  # the line is wiped
    assert text.count("iteration ") == 3
