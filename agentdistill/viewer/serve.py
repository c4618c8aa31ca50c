"""The page served to this machine alone: one address, one page, made again when the run's folder has changed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from agentdistill.errors import UserError
from agentdistill.viewer.page import build
from agentdistill.viewer.source import open_source

HOST = "127.0.0.1"
_HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",  # the page's own policy cannot say this
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Page:
    """The bytes of a run's page. A reader of a run that is still training sees its new iterations after a reload.

    Args:
        folder: the run's.
        batches: names of stored batches; all by default.

    Raises:
        UserError: as `viewer.open_source` and `viewer.build`.
    """

    def __init__(self, folder: Path, batches: Sequence[str] = ()) -> None:
        self._folder, self._batches, self._lock = folder, batches, threading.Lock()
        self._seen, self._bytes = self._state(), self._build()

    def current(self) -> bytes:
        """The page of what is stored now.

        Raises:
            UserError: when it cannot be read any more.
        """
        with self._lock:
            state = self._state()
            if state != self._seen:
                self._bytes, self._seen = self._build(), state
            return self._bytes

    def _build(self) -> bytes:
        return "".join(build(open_source(self._folder, self._batches))).encode("utf-8")

    def _state(self) -> list[tuple[str, int, int]]:
        """Name, size and time of each file that the page is made of."""
        files = [*(self._folder / "store").rglob("*"), *(self._folder / name for name in ("metrics.jsonl", "experiment.yaml"))]
        out = []
        for file in files:
            try:
                about = file.stat()
            except OSError:  # a temporary file that has got its name meanwhile
                continue
            if file.is_file() and not file.name.startswith("."):
                out.append((str(file), about.st_size, about.st_mtime_ns))
        return sorted(out)


class Server(ThreadingHTTPServer):
    """Answers `GET /` of this machine, for its own name only.

    Args:
        page: what is served.
        port: 0 for a free one.

    Raises:
        UserError: for a port out of range, taken, or not allowed.
    """

    daemon_threads = True

    def __init__(self, page: Page, port: int = 0) -> None:
        if not 0 <= port <= 65535:
            raise UserError(f"--port is {port}; it must be from 0 (any free one) to 65535")
        self.page = page
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError(
                f"port {port} of {HOST} cannot be used ({error.strerror}); choose another --port, or none"
            ) from error

    @property
    def port(self) -> int:
        """The port it listens to."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """The page's address."""
        return f"http://{HOST}:{self.port}/"

    def run(self, say: Callable[[str], None]) -> None:
        """Serve until Ctrl-C, which goes on to the caller as KeyboardInterrupt; `say` is told the address."""
        say(f"serving {self.address} to this machine only; Ctrl-C ends it")
        self.serve_forever(poll_interval=0.2)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes its connection is no error of ours; anything else prints its traceback."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 60  # seconds that a connection may say nothing
    server_version, sys_version = "agentdistill", ""

    def do_GET(self) -> None:
        """The page, or why not."""
        if self.headers.get("Host", "") not in {f"{name}:{self.server.port}" for name in (HOST, "localhost")}:
            # A page of elsewhere whose name was made to lead here would otherwise read the run.
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", b"this address is not served here\n")
        elif self.path.partition("?")[0] != "/":
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is one page here: /\n")
        else:
            try:
                self._answer(HTTPStatus.OK, "text/html", self.server.page.current())
            except UserError as error:
                self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", f"{error}\n".encode())

    def do_HEAD(self) -> None:
        """What `GET` would say, without the page."""
        self.do_GET()

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not printed."""
