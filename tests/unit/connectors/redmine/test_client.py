"""The client against a server that misbehaves: every way of failing comes out as one of our errors."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from connectors.redmine.client import RedmineClient
from hub.errors import FatalError, HubError, RejectedError, RetryableError, UncertainError
from hub.kit.connector import RateLimits
from tests.unit.hub.intake.misbehaving import Behaviour, Misbehaving, answer, drip, hang, raw, reset

KEY = "key-that-nobody-may-see"
LIMITS = RateLimits(timeout=0.3)


def client(url: str) -> RedmineClient:
    return RedmineClient(url + "/redmine/", KEY, name="pm", limits=LIMITS)


def failure(behaviour: Behaviour, *, writes: bool) -> HubError:
    with Misbehaving(behaviour) as server:
        redmine = client(server.url)
        call = (lambda: redmine.create_issue({"subject": "a"})) if writes else lambda: redmine.listed("roles")
        with pytest.raises(HubError) as raised:
            call()
    assert KEY not in str(raised.value)
    return raised.value


@pytest.mark.parametrize(
    "behaviour", [reset, hang, drip(b"HTTP/1.1 200 OK\r\nX: "), raw(b"HTTP/1.1 200 OK\r\nContent-Le")]
)
def test_a_missing_answer_is_doubtful_only_when_it_was_a_change(behaviour: Behaviour) -> None:
    assert isinstance(failure(behaviour, writes=True), UncertainError)
    read = failure(behaviour, writes=False)
    assert type(read) is RetryableError


@pytest.mark.parametrize("status", ["500 Internal Server Error", "502 Bad Gateway", "503 Busy", "504 Late", "408 Late"])
def test_a_server_s_failure_is_doubtful_only_when_it_was_a_change(status: str) -> None:
    wrote = failure(answer(status, b"<html>", "Retry-After: 7"), writes=True)
    read = failure(answer(status, b"<html>", "Retry-After: 7"), writes=False)
    assert isinstance(wrote, UncertainError)
    assert type(read) is RetryableError
    assert (wrote.retry_after, read.retry_after) == (7.0, 7.0)


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"[]", b'"x"', b"\xff"])
def test_an_answer_that_is_not_redmine_s_is_doubtful_only_when_it_was_a_change(body: bytes) -> None:
    assert isinstance(failure(answer("200 OK", body), writes=True), UncertainError)
    assert type(failure(answer("200 OK", body), writes=False)) is RetryableError


def test_nobody_there_is_never_doubtful() -> None:
    with Misbehaving(reset) as server:
        gone = client(server.url)
    for call in (lambda: gone.create_issue({}), lambda: gone.update_issue(1, {}), gone.me):
        with pytest.raises(RetryableError, match="HUB-E4001") as raised:
            call()
        assert not isinstance(raised.value, UncertainError)


@pytest.mark.parametrize("writes", [True, False])
def test_a_wrong_key_and_a_wrong_address_are_fatal(writes: bool) -> None:
    refused = failure(answer("401 Unauthorized"), writes=writes)
    assert isinstance(refused, FatalError)
    assert refused.code == "HUB-E4003"
    moved = failure(answer("301 Moved", b"", "Location: https://pm.example.com/roles.json?key=x"), writes=writes)
    assert isinstance(moved, FatalError)
    assert "https://pm.example.com/roles.json" in str(moved)
    assert "key=x" not in str(moved)


@pytest.mark.parametrize("writes", [True, False])
def test_asked_to_slow_down_it_waits_as_long_as_it_is_told(writes: bool) -> None:
    slow = failure(answer("429 Too Many Requests", b"", "Retry-After: 12"), writes=writes)
    assert type(slow) is RetryableError
    assert (slow.code, slow.retry_after) == ("HUB-E4004", 12.0)


def test_a_refusal_is_told_in_redmine_s_own_words() -> None:
    body = json.dumps({"errors": ["主题不能为空", "Assignee is invalid"]}).encode()
    refused = failure(answer("422 Unprocessable Entity", body), writes=True)
    assert isinstance(refused, RejectedError)
    assert refused.seen["status"] == 422
    assert "主题不能为空; Assignee is invalid" in refused.message("zh-CN")


@pytest.mark.parametrize("status", ["403 Forbidden", "404 Not Found", "409 Conflict", "412 Precondition Failed"])
def test_what_may_not_be_changed_is_rejected_and_stops_nobody_else(status: str) -> None:
    assert isinstance(failure(answer(status), writes=True), RejectedError)


def test_a_missing_right_to_read_is_fatal_and_any_other_refusal_to_show_a_list_may_pass() -> None:
    denied = failure(answer("403 Forbidden"), writes=False)
    assert isinstance(denied, FatalError)
    assert denied.seen["path"] == "/redmine/roles.json"
    assert type(failure(answer("404 Not Found"), writes=False)) is RetryableError


@pytest.mark.parametrize("status", ["403 Forbidden", "404 Not Found"])
def test_an_object_that_is_not_to_be_seen_is_none(status: str) -> None:
    with Misbehaving(answer(status)) as server:
        redmine = client(server.url)
        assert redmine.project("baton") is None
        assert redmine.issue(1) is None
        assert redmine.user(1) is None


def test_a_change_is_answered_with_nothing() -> None:
    with Misbehaving(answer("204 No Content")) as server:
        client(server.url).update_issue(7, {"notes": "备注"})
    (request,) = server.received
    assert (request.method, request.target) == ("PUT", "/redmine/issues/7.json")
    assert json.loads(request.body) == {"issue": {"notes": "备注"}}
    assert request.headers["x-redmine-api-key"] == KEY
    assert "authorization" not in request.headers


def test_filters_are_written_so_that_no_value_is_taken_for_an_operator() -> None:
    with Misbehaving(answer("200 OK", b'{"issues": []}')) as server:
        client(server.url).with_value(3, ">=a|b")
        client(server.url).changed_within("2026-01-05T09:00:00Z", "2026-01-05T09:00:01Z", 41)
    marked, within = (parse_qs(urlsplit(request.target).query) for request in server.received)
    assert marked["f[]"] == ["cf_3", "status_id"]
    assert (marked["op[cf_3]"], marked["v[cf_3][]"], marked["op[status_id]"]) == (["="], [">=a|b"], ["*"])
    assert within["v[updated_on][]"] == ["2026-01-05T09:00:00Z", "2026-01-05T09:00:01Z"]
    assert (within["op[issue_id]"], within["v[issue_id][]"]) == ([">="], ["42"])


def test_a_login_is_found_exactly_though_redmine_looks_for_parts() -> None:
    first = {"users": [{"id": n, "login": f"li.lei{n}"} for n in range(100)]}
    last, none = {"users": [{"id": 500, "login": "Li.Lei"}]}, {"users": list[int]()}
    pages = iter([first, last, first, last, none])

    with Misbehaving(lambda connection, stopped: _json(next(pages))(connection, stopped)) as server:
        redmine = client(server.url)
        found = redmine.user_by_login("li.lei")
        assert found is not None
        assert found["id"] == 500
        assert redmine.user_by_login("li") is None


def _json(value: object) -> Behaviour:
    return answer("200 OK", json.dumps(value).encode())
