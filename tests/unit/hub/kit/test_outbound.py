"""Calls to a system that misbehaves on a real socket: each way of failing is told as what it means for the command."""

from __future__ import annotations

import gzip
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from hub.errors import FatalError, HubError, RejectedError, RetryableError, UncertainError, UnreadableError
from hub.kit.api_client import MAX_RESPONSE_BYTES, ApiClient, ApiRequest, retry_after
from hub.kit.connector import RateLimits
from tests.unit.hub.intake.misbehaving import Behaviour, Misbehaving, answer, drip, endless, hang, raw, reset

SECRET = "s3cr3t-token"
QUICK = RateLimits(timeout=0.4)


def _call(url: str, limits: RateLimits = QUICK, repeatable: bool = False) -> bytes:
    outbound = ApiClient("pm", limits, [SECRET])
    request = ApiRequest("POST", f"{url}/tasks?key={SECRET}", {"Idempotency-Key": "k-1"}, b"{}")
    return outbound.call(request, repeatable).body


def _failure(behaviour: Behaviour, repeatable: bool = False) -> HubError:
    with Misbehaving(behaviour) as server:
        with pytest.raises(HubError) as caught:
            _call(server.url, repeatable=repeatable)
        assert len(server.received) == 1, "a request was repeated"
    assert SECRET not in "".join(caught.value.message(language) for language in ("zh-CN", "en"))
    return caught.value


def test_an_answer_that_says_done_gives_its_body() -> None:
    with Misbehaving(answer("201 Created", b'{"id": 7}')) as server:
        assert _call(server.url) == b'{"id": 7}'
        assert server.received[0].headers["idempotency-key"] == "k-1"


def test_no_content_is_an_empty_body() -> None:
    with Misbehaving(raw(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        assert _call(server.url) == b""


def test_a_connection_is_used_again() -> None:
    connections = set()

    def behave(connection: socket.socket, stopped: threading.Event) -> None:
        connections.add(connection.getpeername())
        answer("200 OK", b"{}")(connection, stopped)

    with Misbehaving(behave) as server:
        outbound = ApiClient("pm", RateLimits())
        for _ in range(3):
            outbound.call(ApiRequest("GET", server.url, {}))
    assert len(connections) == 1


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        ("400 Bad Request", RejectedError, "HUB-E4006"),
        ("404 Not Found", RejectedError, "HUB-E4006"),
        ("409 Conflict", RejectedError, "HUB-E4006"),
        ("410 Gone", RejectedError, "HUB-E4006"),
        ("422 Unprocessable", RejectedError, "HUB-E4006"),
        ("401 Unauthorized", FatalError, "HUB-E4003"),
        ("403 Forbidden", FatalError, "HUB-E4003"),
        ("408 Request Timeout", RetryableError, "HUB-E4005"),
        ("425 Too Early", RetryableError, "HUB-E4005"),
        ("429 Too Many Requests", RetryableError, "HUB-E4004"),
        ("500 Internal Server Error", UncertainError, "HUB-E4002"),
        ("502 Bad Gateway", UncertainError, "HUB-E4002"),
        ("503 Service Unavailable", UncertainError, "HUB-E4002"),
        ("301 Moved", RejectedError, "HUB-E4207"),
        ("303 See Other", UnreadableError, "HUB-E4207"),
        ("308 Moved", RejectedError, "HUB-E4207"),
    ],
)
def test_a_status_says_what_becomes_of_the_command(status: str, kind: type[HubError], code: str) -> None:
    error = _failure(answer(status, f"no: {SECRET}".encode(), f"Location: http://elsewhere.invalid/?key={SECRET}"))
    assert (type(error), error.code) == (kind, code)


def test_a_conflict_of_a_repeated_request_may_be_our_first_one_still_under_way() -> None:
    assert isinstance(_failure(answer("409 Conflict"), repeatable=True), UnreadableError)


def test_a_wait_that_is_asked_for_is_passed_on() -> None:
    for status, kind in (("429 Busy", RetryableError), ("503 Down", UncertainError)):
        error = _failure(answer(status, b"", "Retry-After: 7"))
        assert isinstance(error, kind)
        assert error.retry_after == 7.0
    assert _failure(answer("429 Busy")).__dict__["retry_after"] is None


def test_a_refusal_shows_the_beginning_of_its_answer_on_one_line() -> None:
    error = _failure(answer("422 Unprocessable", "标题\n不能为空 ".encode() + b"x" * 900))
    assert error.seen["reason"].startswith("HTTP 422: 标题 不能为空 xxx")
    assert len(error.seen["reason"]) <= 320


def test_a_refusal_whose_body_breaks_off_is_still_a_refusal() -> None:
    assert isinstance(_failure(answer("404 Not Found", b"half", length=400)), RejectedError)


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (hang, "HUB-E4201"),
        (drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"), "HUB-E4201"),
        (drip(b"HTTP/1.1 200 OK\r\nX-Slow: "), "HUB-E4201"),
        (drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n"), "HUB-E4201"),
        (reset, "HUB-E4202"),
        (raw(b""), "HUB-E4202"),
        (raw(b"garbage that is no HTTP\r\n\r\n"), "HUB-E4202"),
        (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), "HUB-E4202"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"), "HUB-E4202"),
        (answer("200 OK", b'{"id"', length=4000), "HUB-E4202"),
        (endless, "HUB-E4204"),
    ],
)
def test_without_a_whole_answer_in_time_it_may_have_been_done(behaviour: Behaviour, code: str) -> None:
    started = time.monotonic()
    error = _failure(behaviour)
    assert isinstance(error, UncertainError)
    assert isinstance(error, UnreadableError) == (code == "HUB-E4204")
    assert error.code == code
    assert time.monotonic() - started < 3


def test_a_packed_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b"x" * (64 * MAX_RESPONSE_BYTES))
    error = _failure(answer("200 OK", bomb, "Content-Encoding: gzip"))
    assert error.code == "HUB-E4204"


def test_a_request_that_was_never_written_was_surely_not_done() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RetryableError) as refused:
        _call(f"http://127.0.0.1:{port}")
    assert (type(refused.value), refused.value.code) == (RetryableError, "HUB-E4001")
    with pytest.raises(RetryableError) as unknown:
        _call("http://nowhere.invalid")
    assert (type(unknown.value), unknown.value.code) == (RetryableError, "HUB-E4001")


def test_a_connection_that_is_never_accepted_was_surely_not_used() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(8)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)  # fills the queue, so that the next one gets no answer
        with pytest.raises(RetryableError) as caught:
            _call(f"http://127.0.0.1:{address[1]}")
        for one in waiting:
            one.close()
    assert (type(caught.value), caught.value.code) == (RetryableError, "HUB-E4001")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that only its own file vouches for, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    asked = ["-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=test"]
    subprocess.run(
        ["openssl", "req", "-x509", *asked, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True
    )
    return cert, key


def _secured(certificate: tuple[str, str]) -> Misbehaving:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return Misbehaving(answer("200 OK", b"{}"), tls=context)


def test_a_certificate_that_nobody_vouches_for_is_told(certificate: tuple[str, str]) -> None:
    with _secured(certificate) as server, pytest.raises(RetryableError) as caught:
        _call(server.url, RateLimits(timeout=5))
    assert (type(caught.value), caught.value.code) == (RetryableError, "HUB-E4208")
    assert server.received == []


def test_a_private_authority_can_be_trusted(certificate: tuple[str, str]) -> None:
    with _secured(certificate) as server:
        outbound = ApiClient("pm", RateLimits(timeout=5), ca=certificate[0])
        assert outbound.call(ApiRequest("GET", server.url, {})).body == b"{}"


def test_many_threads_share_one_way_out() -> None:
    with Misbehaving(answer("200 OK", b"{}")) as server, ThreadPoolExecutor(8) as pool:
        outbound = ApiClient("pm", RateLimits(timeout=5))
        calls = [pool.submit(outbound.call, ApiRequest("POST", f"{server.url}/{at}", {}, b"{}")) for at in range(160)]
        assert {call.result().body for call in calls} == {b"{}"}
        assert sorted(each.target for each in server.received) == sorted(f"/{at}" for at in range(160))


def test_tls_that_cannot_begin_was_surely_not_used() -> None:
    with Misbehaving(raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server, pytest.raises(RetryableError) as caught:
        _call(server.url.replace("http:", "https:"))
    assert type(caught.value) is RetryableError


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("ftp://127.0.0.1/x", {}),
        ("http://", {}),
        ("http://127.0.0.1:99999/", {}),
        ("http://127.0.0.1/", {"X-A": "one\r\nX-B: two"}),
    ],
)
def test_what_cannot_be_written_is_rejected(url: str, headers: dict[str, str]) -> None:
    with pytest.raises(RejectedError) as caught:
        ApiClient("pm", QUICK).call(ApiRequest("GET", url, headers))
    assert caught.value.code == "HUB-E4209"
    assert "two" not in caught.value.message("en")


def test_an_earlier_request_of_the_thread_does_not_count_as_written() -> None:
    with Misbehaving(answer("200 OK")) as server:
        _call(server.url)
    with pytest.raises(RejectedError):
        ApiClient("pm", QUICK).call(ApiRequest("GET", "http://", {}))


def test_the_environment_is_not_asked_for_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with Misbehaving(answer("200 OK", b"{}", "Set-Cookie: a=b")) as server:
        assert _call(server.url) == b"{}"


def test_cookies_are_not_kept() -> None:
    with Misbehaving(answer("200 OK", b"{}", "Set-Cookie: session=1; Path=/")) as server:
        outbound = ApiClient("pm", RateLimits())
        for _ in range(2):
            outbound.call(ApiRequest("GET", server.url, {}))
    assert "cookie" not in server.received[1].headers


def test_a_name_and_a_password_in_the_address_are_credentials() -> None:
    with Misbehaving(answer("200 OK", b"{}")) as server:
        _call(server.url.replace("//", "//us%40er:p%C3%A4ss@"))
    assert server.received[0].headers["authorization"] == f"Basic {b64encode('us@er:päss'.encode()).decode()}"


def test_an_address_is_shown_without_its_secrets() -> None:
    assert ApiRequest("GET", "https://user:pass@pm.example/a?key=b#c", {}).shown == "https://pm.example/a"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("12", 12.0),
        ("999999999", 3600.0),
        ("Sun, 22 Nov 2026 10:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 09:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
def test_retry_after_is_read(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)) == seconds


@pytest.mark.parametrize("control", ["\r\n ", "\n\t", "\r", "\n", "\t", "\x00", "\x0b", "\x7f", "\x85", "\x1b[2J"])
@pytest.mark.parametrize("where", ["name", "value"])
def test_no_control_character_leaves_in_a_header(control: str, where: str) -> None:
    """A folded line (`a CR LF blank X-Evil: 1`) was sent: some read it as a header of its own (A18)."""
    text = f"a{control}X-Evil: 1"
    headers = {"X-Note": text} if where == "value" else {text: "x"}
    with Misbehaving(answer("200 OK")) as server, pytest.raises(RejectedError) as refused:
        ApiClient("pm", QUICK).call(ApiRequest("POST", server.url, headers, b"{}"))
    assert refused.value.code == "HUB-E4209"
    assert server.received == []
