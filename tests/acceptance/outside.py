"""The outside systems of acme: a project tool, a messenger and an ERP, each an HTTP server that counts effects by our mark.

They keep their promises (the same Idempotency-Key is one effect, a mark can be looked up) and misbehave by a seeded plan.
"""

from __future__ import annotations

import contextlib
import http.server
import random
import socket
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

Mischief = Callable[[], str | None]
"""What is wrong with the next call, one of KINDS; None when nothing is. With `-done` at its end the work was done all the same."""
KINDS = {
    "401": "credentials that are not known",
    "429": "too many, without a Retry-After",
    "429-later": "too many, with a Retry-After of a second",
    "500": "a failure before the work",
    "503": "not there just now",
    "drop": "the connection is closed before the work",
    "hang": "no answer, and no work",
    "500-done": "a failure after the work",
    "drop-done": "the connection is closed after the work",
    "hang-done": "no answer after the work",
    "half-done": "an answer that is cut off in the middle",
    "short-done": "an answer that is longer than it said",
    "garbage-done": "an answer that is no JSON, with a status that says done",
    "drip-done": "an answer of a byte a second",
    "huge-done": "an answer that never ends",
    "lost": "a task is said to be made, and is not; anything else is well",
}


def well_behaved() -> None:
    """Nothing is ever wrong."""


@dataclass
class Seeded:
    """Something is wrong with a share of the calls, the same for the same seed and order of calls."""

    seed: int
    share: float = 0.08
    kinds: tuple[str, ...] = ("429", "429-later", "500", "500-done", "drop", "drop-done", "hang-done")
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def __call__(self) -> str | None:
        return self._random.choice(self.kinds) if self._random.random() < self.share else None


@dataclass
class Made:
    """One object that was made over there."""

    id: str
    kind: str
    body: dict[str, Any]
    key: str | None
    at: float = field(default_factory=time.monotonic)


class Outside:
    """One server with everything in it: /projects, /tasks, /messages, /postings."""

    def __init__(self, mischief: Mischief = well_behaved) -> None:
        self.mischief = mischief
        self.lock = threading.Lock()
        self.made: list[Made] = []
        self.by_key: dict[str, Made] = {}
        self.calls: Counter[str] = Counter()
        self.lag = 0.0
        """Seconds until what was made is found by a look-up."""
        self.lied: set[str] = set()
        """The marks of tasks that were said to be made, and were not."""
        self.stopping = threading.Event()
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """End the server and every call that hangs in it."""
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def of(self, kind: str) -> list[Made]:
        """What was made of a kind."""
        with self.lock:
            return [made for made in self.made if made.kind == kind]

    def marks(self, kind: str) -> Counter[str]:
        """How often each mark was made: 1 everywhere, or something was done twice."""
        return Counter(str(made.body.get("mark")) for made in self.of(kind))

    def make(self, kind: str, body: dict[str, Any], key: str | None) -> Made:
        """Make an object, once by its key where the kind knows keys (tasks do not: they can only be looked up)."""
        with self.lock:
            known = self.by_key.get(f"{kind}/{key}") if key and kind != "tasks" else None
            if known is not None:
                return known
            made = Made(f"{kind[:1].upper()}-{len(self.made) + 1}", kind, body, key)
            self.made.append(made)
            if key:
                self.by_key[f"{kind}/{key}"] = made
            return made


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that was killed in the middle of a call is part of the test."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        kind = self.path.strip("/")
        body = orjson.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        outside = self.server.outside
        wrong = outside.mischief()
        wrong = None if wrong == "lost" and kind != "tasks" else wrong
        outside.calls[wrong or "well"] += 1
        if wrong == "lost":
            return self._lie(body)
        if wrong is not None and not wrong.endswith("-done"):
            return self._refuse(wrong)
        made = outside.make(kind, body, self.headers.get("Idempotency-Key"))
        if wrong is not None:
            return self._refuse(wrong.removesuffix("-done"))
        return self._reply(201, {"id": made.id, **body})

    def do_GET(self) -> None:
        kind, _, query = self.path.partition("?")
        mark = urllib.parse.parse_qs(query).get("mark", [""])[0]
        outside = self.server.outside
        before = time.monotonic() - outside.lag
        found = [made for made in outside.of(kind.strip("/")) if made.body.get("mark") == mark and made.at <= before]
        self._reply(200, {"items": [{"id": made.id} for made in found]})

    def _lie(self, body: dict[str, Any]) -> None:
        """Say that it was made. One that was made before, and could not be told, is still there."""
        outside = self.server.outside
        known = [made for made in outside.of("tasks") if made.body.get("mark") == body["mark"]]
        if not known:
            outside.lied.add(str(body["mark"]))
        return self._reply(201, {"id": known[0].id if known else f"X-{len(outside.lied)}", **body})

    def _refuse(self, wrong: str) -> None:
        status, _, later = wrong.partition("-")
        if status.isdecimal():
            return self._reply(int(status), {"error": "not now"}, {"Retry-After": "1"} if later else {})
        if wrong in _SPOILED:
            _SPOILED[wrong](self)
        if wrong == "hang":
            self.server.outside.stopping.wait(30)
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        return None

    def begin(self, length: int, status: int = 201) -> None:
        """The head of an answer of so many bytes."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _reply(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        out = orjson.dumps(value)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(out)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(out)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def _half(handler: _Handler) -> None:
    handler.begin(100)
    handler.wfile.write(b'{"id": "P')


def _short(handler: _Handler) -> None:
    handler.begin(5)
    handler.wfile.write(b'{"id": "P-1"}')


def _garbage(handler: _Handler) -> None:
    handler.begin(16)
    handler.wfile.write(b"<html>oops</html"[:16])


def _drip(handler: _Handler) -> None:
    handler.begin(1000)
    for _ in range(40):
        handler.wfile.write(b" ")
        if handler.server.outside.stopping.wait(1.0):
            return


def _huge(handler: _Handler) -> None:
    handler.begin(10_000_000_000)
    piece = b" " * 65536
    with contextlib.suppress(OSError):
        while not handler.server.outside.stopping.is_set():
            handler.wfile.write(piece)


_SPOILED: dict[str, Callable[[_Handler], None]] = {
    "half": _half,
    "short": _short,
    "garbage": _garbage,
    "drip": _drip,
    "huge": _huge,
}
