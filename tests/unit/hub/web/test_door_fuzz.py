"""Whatever bytes come, the door answers them or hangs up: never with a 500, never with a traceback, and it goes on.

`HUB_FUZZ=100000` tries as many of each instead of a sample.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hub.intake.intake import Intake
from hub.ledger.ledger import Ledger
from hub.runtime.clock import SystemClock
from hub.web import webhooks
from hub.web.bodies import Bodies, Caps
from hub.web.proxy import BoardsProxy
from hub.web.refusals import Refusals
from hub.web.webhooks import ListenAddress, Pushes, WebServer
from tests.fuzzing import inputs
from tests.pushing import SECRET, Staff, crm, deal

EXAMPLES = inputs(300)
UNHEARD = {"event": "aiohttp met an exception of ours", "exc_info": True}
KEY = base64.b64decode(SECRET.removeprefix("whsec_"))


@dataclass
class Open:
    """A door that is open in a thread of its own."""

    port: int
    lines: list[Any]

    def send(self, sent: bytes) -> bytes:
        """What comes back for these bytes until the door hangs up."""
        with socket.create_connection(("127.0.0.1", self.port), 20) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(sent)
            got = b""
            while chunk := connection.recv(65536):
                got += chunk
            return got
        return b""

    def statuses(self, sent: bytes) -> list[int]:
        """The statuses of the answers."""
        got = self.send(sent)
        return [
            int(line[9:12]) for line in got.split(b"\r\n") if line.startswith(b"HTTP/1.1 ") and line[9:12].isdigit()
        ]

    def is_well(self) -> bool:
        """Whether it takes an honest push."""
        return self.statuses(_request(b"POST", b"/webhooks/crm", _signed(deal()), deal())) == [202]


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """Quick to hang up, so that what is not finished costs a moment."""
    folder = tmp_path_factory.mktemp("door")
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
    ready, told = threading.Event(), dict[str, Any]()

    async def serve() -> None:
        bodies = Bodies(Caps(grace=0.05))
        passage = BoardsProxy(Path(folder / "none.sock"), bodies)
        receivers = {
            "crm": crm().receives,
            "hub-like": crm("hub-like", scheme="x-hub-signature-256").receives,
        }
        refusals = Refusals(ledger, SystemClock())
        intake = Intake(ledger, Staff(), SystemClock())
        pushes = Pushes(intake, receivers, bodies, SystemClock(), refusals)  # type: ignore[arg-type]
        opened = WebServer(ListenAddress(port=0), pushes, passage.answer)
        await passage.open()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: lines.append({"event": "loop", "exc_info": str(context)}))
        told["port"], told["stop"], told["loop"] = await opened.open(), asyncio.Event(), loop
        ready.set()
        await told["stop"].wait()
        await passage.close()
        await opened.close()
        refusals.flush()

    with pytest.MonkeyPatch.context() as patch, structlog.testing.capture_logs() as lines:
        patch.setattr(webhooks, "HEAD_TIMEOUT_S", 0.2)
        patch.setattr(webhooks._http_log, "exception", lambda message, *_, **__: lines.append(UNHEARD))
        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        assert ready.wait(20)
        yield Open(told["port"], lines)
        told["loop"].call_soon_threadsafe(told["stop"].set)
        thread.join(20)
    ledger.close()


def _signed(body: bytes, id_: str = "msg_1") -> dict[bytes, bytes]:
    at = str(int(time.time()))
    seal = base64.b64encode(hmac.digest(KEY, f"{id_}.{at}.".encode() + body, hashlib.sha256))
    both = b"sha256=" + hmac.digest(SECRET.encode(), body, hashlib.sha256).hex().encode()
    return {
        b"webhook-id": id_.encode(),
        b"webhook-timestamp": at.encode(),
        b"webhook-signature": b"v1," + seal,
        b"x-hub-signature-256": both,
    }


def _request(method: bytes, path: bytes, headers: dict[bytes, bytes], body: bytes) -> bytes:
    given_ = {b"host": b"localhost", b"connection": b"close", b"content-length": b"%d" % len(body), **headers}
    return (
        b"%s %s HTTP/1.1\r\n" % (method, path)
        + b"".join(b"%s: %s\r\n" % each for each in given_.items())
        + b"\r\n"
        + body
    )


RAW = st.binary(max_size=40)
TOKENS = st.one_of(RAW, st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")), st.sampled_from([
    b"..", b"%2e%2e", b"%ff", b"%00", b"//", b"?", b"#", b"\xc0\x80", b"\xed\xa0\xbd", b"\r\n\r\n", b"\x00", "王芳".encode("gbk"),
    b"http://evil/", b"*", b"crm", b"health", b"metrics", b"=", b"a" * 9000,
]))  # fmt: skip
BEFORE = st.sampled_from([b"/", b"/webhooks/", b"/webhooks/crm", b"/webhooks/hub-like", b"/boards/", b""])
PATHS = st.tuples(BEFORE, TOKENS, TOKENS).map(b"".join)
NAMES = st.one_of(RAW, st.sampled_from([
    b"host", b"connection", b"content-length", b"transfer-encoding", b"content-encoding", b"expect", b"cookie", b"origin",
    b"content-type", b"accept-language", b"accept", b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"upgrade",
    b"x-hub-signature-256", b"te", b"trailer", b"range", b"authorization", b"x-operator", b"sec-websocket-key",
]))  # fmt: skip
VALUES = st.one_of(TOKENS, st.sampled_from([
    b"chunked", b"chunked, chunked", b"gzip", b"identity", b"100-continue", b"close", b"keep-alive", b"websocket", b"0", b"-1",
    b"99999999999999999999", b"1e3", b"1, 1", b"text/html", b"en", b"\xd9\xa1", b"bytes=0-",
]))  # fmt: skip
HEADERS = st.dictionaries(NAMES, VALUES, max_size=5)
METHODS = st.one_of(st.sampled_from([b"POST", b"GET", b"HEAD", b"PUT", b"CONNECT", b"OPTIONS", b"PRI", b"post"]), RAW)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(["id", "version", "title", "customer", "amount", "currency", "owner"])
ODD = st.sampled_from([
    b'"cut \\ud83d"', b'"\\u0000"', b"1e400", b"NaN", b"-0", b"1e-400", b"9" * 45, b"[[[[[]]]]]", b"{}", b'"\\ufffd"', b"null",
    b"true", b'"2026-13-01"', b'""', b'" "', b"18446744073709551617", b"1.10", b'"' + b"x" * 5000 + b'"',
])  # fmt: skip


@st.composite
def deals(draw: st.DrawFn) -> bytes:
    """A deal with something odd in it: a value, a field, bytes before, between or behind."""
    told = orjson.loads(deal())
    if draw(st.booleans()):
        told["deal"][draw(FIELDS)] = "?"
    else:
        told[draw(st.text(max_size=8))] = "?"
    body = orjson.dumps(told).replace(b'"?"', draw(ODD))
    at = draw(st.integers(0, len(body)))
    return draw(st.sampled_from([body, b"\xef\xbb\xbf" + body, body[:at], body[:at] + draw(RAW) + body[at:]]))


def _dumps(value: Any) -> bytes:
    import json

    return json.dumps(value).encode()


def _holds(door: Open, sent: bytes) -> None:
    assert 500 not in door.statuses(sent)
    assert [line for line in door.lines if line["event"] == "door.failed" or "exc_info" in line] == []


PIECES = st.sampled_from([b"GET / HTTP/1.1\r\n", b"host: x\r\n", b"\r\n", b"0\r\n\r\n"])
ANY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@ANY
@given(METHODS, PATHS, HEADERS, st.one_of(RAW, deals()))
@example(b"CONNECT", b"\n\r\n", {}, b"")
@example(b"GET", b"/%ff%fe?%ff=\xff", {b"host": b"localhost"}, b"")
@example(b"POST", b"/webhooks/\xed\xa0\xbd", {b"accept-language": b"\xff"}, b"")
@example(b"POST", b"/webhooks/crm", {b"content-encoding": b"\xff"}, b"{}")
@example(b"POST", b"/webhooks/crm", {b"webhook-signature": b"v1,\xed\xa0\xbd", b"webhook-id": b"\xff"}, b"{}")
@example(b"GET", b"/boards/tasks", {b"host": b"\xff", b"cookie": b"\xed\xb3\x8d"}, b"")
@example(b"GET", b"/boards/tasks", {b"x-operator": b"\xcd\xf5", b"accept": b"text/html"}, b"")
def test_any_request(door: Open, method: bytes, path: bytes, headers: dict[bytes, bytes], body: bytes) -> None:
    _holds(door, _request(method, path, headers, body))


@ANY
@given(
    st.lists(
        st.one_of(RAW, TOKENS, st.sampled_from([b"GET / HTTP/1.1\r\n", b"host: x\r\n", b"\r\n", b"0\r\n\r\n"])),
        max_size=8,
    )
)
def test_any_bytes(door: Open, pieces: list[bytes]) -> None:
    _holds(door, b"".join(pieces))


@ANY
@given(st.one_of(deals(), JSON.map(_dumps), RAW), st.sampled_from([b"/webhooks/crm", b"/webhooks/hub-like"]), HEADERS)
@example(b'{"type": "deal.won", "deal": {"id": "\\udc00", "owner": ["\\ud800"]}}', b"/webhooks/crm", {})
@example(b"[" * 70 + b"]" * 70, b"/webhooks/crm", {})
@example(b'{"a": ' * 30_000, b"/webhooks/crm", {})
@example(b"[" + b"1," * 60_000 + b"1]", b"/webhooks/crm", {b"x-operator": b"\xcd\xf5"})
def test_any_signed_push(door: Open, body: bytes, path: bytes, headers: dict[bytes, bytes]) -> None:
    _holds(door, _request(b"POST", path, {**headers, **_signed(body)}, body))


def test_it_is_as_well_as_before(door: Open) -> None:
    assert door.is_well()
