"""The client against a scripted server: every way of failing comes out as one of our errors."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from connectors.tryton.client import PAGE_SIZE, TrytonClient
from hub.errors import FatalError, HubError, RejectedError, RetryableError, UncertainError

Answer = tuple[int, bytes, dict[str, str]]


@dataclass
class Script:
    """Answers log-ins and preferences as Tryton does, and all other calls with `answer`."""

    answer: Callable[[str, list[Any]], Answer] = lambda method, params: ok(None)
    calls: list[tuple[str, list[Any]]] = field(default_factory=list)
    logins: int = 0

    def take(self, method: str, params: list[Any], authorization: str | None) -> Answer:
        if method == "common.db.login":
            self.logins += 1
            if params[1]["password"] != "right":
                return 401, b"", {}
            return ok([6, f"token-{self.logins}", None])
        assert authorization is not None
        assert base64.b64decode(authorization.removeprefix("Session ")).startswith(b"baton:6:token-")
        self.calls.append((method, params))
        if method == "model.res.user.get_preferences":
            return ok({"company": 1, "language": "en"})
        return self.answer(method, params)


def ok(result: object) -> Answer:
    return 200, json.dumps({"id": 1, "result": result}).encode(), {}


def failed(*error: object) -> Answer:
    return 200, json.dumps({"id": 1, "error": error}).encode(), {}


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def url(script: Script) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert set(body) == {"id", "method", "params"}
            status, answer, headers = script.take(body["method"], body["params"], self.headers.get("Authorization"))
            if status == 0:
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def client(url: str) -> Iterator[TrytonClient]:
    made = TrytonClient(url, "hub", "baton", "right", name="crm", timeout=2.0)
    yield made
    made.close()


def error_of(client: TrytonClient, *, writes: bool) -> HubError:
    with pytest.raises(HubError) as raised:
        client.call("model.party.party.create", [{}], writes=writes)
    return raised.value


@pytest.mark.parametrize(
    ("answer", "reading", "writing", "code"),
    [
        ((400, b"", {}), RejectedError, RejectedError, "HUB-E4006"),
        ((403, b"", {}), RejectedError, RejectedError, "HUB-E4006"),
        ((302, b"", {"Location": "/login"}), RejectedError, RejectedError, "HUB-E4006"),
        ((404, b"", {}), RetryableError, RetryableError, "HUB-E4101"),
        ((429, b"", {"Retry-After": "7"}), RetryableError, RetryableError, "HUB-E4004"),
        (failed("UserError", ["no", "way", None]), RejectedError, RejectedError, "HUB-E4006"),
        (failed("UserWarning", ["name", "sure?", ""]), RejectedError, RejectedError, "HUB-E4006"),
        (failed("ConcurrencyException", "changed"), RetryableError, RetryableError, "HUB-E4005"),
        (failed("LoginException", ["otp", "code?", "char"]), FatalError, FatalError, "HUB-E4003"),
    ],
)
def test_what_was_surely_not_done_says_so_for_reading_and_writing(
    script: Script, client: TrytonClient, answer: Answer, reading: type[HubError], writing: type[HubError], code: str
) -> None:
    script.answer = lambda method, params: answer
    for writes, kind in ((False, reading), (True, writing)):
        raised = error_of(client, writes=writes)
        assert (type(raised), raised.code) == (kind, code)


@pytest.mark.parametrize(
    "answer",
    [
        (500, b"", {}),
        (503, b"", {}),
        (504, b"", {}),
        (200, b"<html>welcome to the hotel</html>", {}),
        (200, b"[]", {}),
        (200, b'{"id":1,"res', {}),
        (0, b"", {}),
        failed("KeyError('x')", "Traceback"),
    ],
)
def test_what_may_have_been_done_is_uncertain_for_writing_and_retryable_for_reading(
    script: Script, client: TrytonClient, answer: Answer
) -> None:
    script.answer = lambda method, params: answer
    assert type(error_of(client, writes=False)) is RetryableError
    assert type(error_of(client, writes=True)) is UncertainError


def test_a_refused_connection_changed_nothing(client: TrytonClient) -> None:
    client.context()
    client.url = "http://127.0.0.1:1"
    raised = error_of(client, writes=True)
    assert (type(raised), raised.code) == (RetryableError, "HUB-E4001")


def test_the_reason_is_tryton_s_own(script: Script, client: TrytonClient) -> None:
    script.answer = lambda method, params: failed("UserError", ["Number taken.", "Choose another.", None])
    assert error_of(client, writes=True).seen["reason"] == "Number taken. Choose another."


def test_tryton_says_when_to_come_back(script: Script, client: TrytonClient) -> None:
    script.answer = lambda method, params: (429, b"", {"Retry-After": "7"})
    raised = error_of(client, writes=False)
    assert isinstance(raised, RetryableError)
    assert raised.retry_after == 7.0


def test_the_context_is_the_last_parameter_with_the_user_s_company(script: Script, client: TrytonClient) -> None:
    script.answer = lambda method, params: ok([])
    client.search("party.party", [["name", "=", "x"]], ["name"])
    assert script.calls[-1] == (
        "model.party.party.search_read",
        [[["name", "=", "x"]], 0, PAGE_SIZE, [["id", "ASC"]], ["name"], {"company": 1}],
    )


def test_a_user_without_a_company_is_fatal(client: TrytonClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "bare", lambda *call: {"language": "en"})
    with pytest.raises(FatalError) as raised:
        client.context()
    assert raised.value.code == "HUB-E4102"


def test_a_wrong_password_is_fatal_and_asked_once(url: str, script: Script) -> None:
    client = TrytonClient(url, "hub", "baton", "wrong", name="crm")
    raised = error_of(client, writes=False)
    assert (type(raised), raised.code, script.logins) == (FatalError, "HUB-E4003", 1)
    assert "wrong" not in str(raised)
    client.close()


def test_a_session_that_ran_out_is_renewed_once_for_all_threads(script: Script, client: TrytonClient) -> None:
    client.context()
    all_refused = threading.Barrier(4)
    waiting = set(range(4))

    def answer(method: str, params: list[Any]) -> Answer:
        if params[0] in waiting:
            waiting.discard(params[0])
            all_refused.wait(5)
            return 401, b"", {}
        return ok(params[0])

    script.answer = answer
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda one: client.call("model.x.y", one), range(4))) == [0, 1, 2, 3]
    assert script.logins == 2


def test_a_server_that_refuses_new_sessions_is_fatal_not_a_loop(script: Script, client: TrytonClient) -> None:
    client.context()
    script.answer = lambda method, params: (401, b"", {})
    raised = error_of(client, writes=True)
    assert (type(raised), raised.code, script.logins) == (FatalError, "HUB-E4003", 2)


def test_pages_go_on_after_the_last_record_not_at_an_offset(script: Script, client: TrytonClient) -> None:
    stamp = {"__class__": "datetime", "year": 2026, "month": 1, "day": 1, "hour": 0, "minute": 0, "second": 0}
    rows = [{"id": id_, "write_date": {**stamp, "microsecond": id_}} for id_ in range(1, PAGE_SIZE + 2)]
    pages = iter([rows[:PAGE_SIZE], rows[PAGE_SIZE:]])
    script.answer = lambda method, params: ok(next(pages))
    found = list(client.by_time("sale.opportunity", "write_date", [], None, ["id", "write_date"]))
    assert [row["id"] for row in found] == list(range(1, PAGE_SIZE + 2))
    domain = script.calls[-1][1][0]
    last = rows[PAGE_SIZE - 1]["write_date"]
    later = ["OR", [["write_date", ">", last]], [["write_date", "=", last], ["id", ">", PAGE_SIZE]]]
    assert domain == [["write_date", "!=", None], [], later]
