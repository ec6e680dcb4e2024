"""Commands carried out at a real server: what is sent, what is read, and what each doubtful answer means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from connectors.http.connector import connect
from hub.config.yaml_places import Filled
from hub.errors import FatalError, HubError, RejectedError, RetryableError, UncertainError, UnreadableError
from hub.kit.connector import Effect
from tests.unit.hub.intake.instances import COMMAND_ID, command, instance, target
from tests.unit.hub.intake.misbehaving import Behaviour, Misbehaving, answer, hang, raw

SETTINGS = """
limits: {timeout: 0.5}
auth: {bearer: t0ken-of-ours}
send:
  project.create:
    post: "%URL%/projects"
    headers: {X-Case: "${command.case}", X-Title: "${command.name}"}
    json: {name: "${command.name}", customer: "${command.customer}", mark: "${command.id}", tags: [hub, "${command.type}"]}
    once: {header: Idempotency-Key}
    id: "${response.id}"
  task.create:
    post: "%URL%/projects/${command.project}/tasks?notify=no&title=${command.title}"
    json: {title: "${command.title}", due: "${command.due}"}
    find: {get: "%URL%/tasks?mark=${command.id}", id: "${response.items[0].id}", absent: "size(response.items) == 0"}
    id: "${response.id}"
  message.send:
    put: "%URL%/messages"
    json: "${command.text}"
  task.update:
    patch: "%URL%/tasks/${command.task}"
check: {get: "%URL%/me"}
"""
TASK = command("task.create", project="P 1/中", title="启动会 & more?", due="2026-11-24")
PROJECT = command("project.create", name="智慧园区")


def _target(url: str, text: str = SETTINGS) -> Any:
    return target(connect(instance(text, URL=url)))


def _sent(behaviour: Behaviour, what: Any) -> tuple[Effect, Any]:
    with Misbehaving(behaviour) as server:
        return _target(server.url).send(what), server.received[0]


def _failure(behaviour: Behaviour, what: Any, look: bool = False) -> HubError:
    with Misbehaving(behaviour) as server, pytest.raises(HubError) as caught:
        (_target(server.url).find if look else _target(server.url).send)(what)
    return caught.value


def test_a_command_is_one_request_with_its_key() -> None:
    effect, received = _sent(answer("201 Created", b'{"id": 17, "more": [1]}'), PROJECT)
    assert effect == Effect("17", {"id": 17, "more": [1]})
    assert (received.method, received.target) == ("POST", "/projects")
    assert received.headers["idempotency-key"] == COMMAND_ID
    assert received.headers["authorization"] == "Bearer t0ken-of-ours"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["x-case"] == "opportunity/crm/O-1"
    assert json.loads(received.body) == {
        "name": "智慧园区",
        "customer": None,
        "mark": COMMAND_ID,
        "tags": ["hub", "project.create"],
    }


def test_values_are_encoded_into_an_address() -> None:
    _, received = _sent(answer("200 OK", b'{"id": "T-1"}'), TASK)
    assert received.target == (
        "/projects/P%201%2F%E4%B8%AD/tasks?notify=no&title=%E5%90%AF%E5%8A%A8%E4%BC%9A%20%26%20more%3F"
    )
    assert "idempotency-key" not in received.headers


@pytest.mark.parametrize("project", ["", ".", "..", None, True, ["a"]])
def test_a_value_may_not_change_the_path(project: Any) -> None:
    what = command("task.create", project=project, title="a")
    error = _failure(answer("200 OK"), what)
    assert (type(error), error.code) == (RejectedError, "HUB-E4212")


def test_a_header_cannot_be_broken_out_of() -> None:
    error = _failure(answer("200 OK"), command("project.create", name="a\r\nX-Evil: 1"))
    assert (type(error), error.code) == (RejectedError, "HUB-E4209")


@pytest.mark.parametrize("name", [None, True, ["a"], {"a": 1}])
def test_a_header_is_text(name: Any) -> None:
    error = _failure(answer("200 OK"), command("project.create", name=name))
    assert (type(error), error.code) == (RejectedError, "HUB-E3125")


def test_an_argument_cannot_take_the_place_of_the_mark() -> None:
    _, received = _sent(answer("200 OK", b'{"id": 1}'), command("project.create", name="a", id="forged"))
    assert json.loads(received.body)["mark"] == COMMAND_ID


def test_a_missing_argument_is_no_empty_text() -> None:
    error = _failure(answer("200 OK"), command("project.create"))
    assert (type(error), error.code) == (RejectedError, "HUB-E3120")


@pytest.mark.parametrize("body", [b"", b"  \n", b"{}", b'{"errors": []}'])
def test_without_an_id_any_json_says_done(body: bytes) -> None:
    effect, received = _sent(answer("200 OK", body), command("message.send", to="lilei", text="你好"))
    assert effect.id is None
    assert (received.method, json.loads(received.body)) == ("PUT", "你好")


def test_a_request_may_have_no_body() -> None:
    effect, received = _sent(raw(b"HTTP/1.1 204 No Content\r\n\r\n"), command("task.update", task="T-1", done=True))
    assert effect == Effect(None, {})
    assert (received.method, received.target, received.body) == ("PATCH", "/tasks/T-1", b"")


def test_a_long_answer_is_not_kept() -> None:
    effect, _ = _sent(answer("200 OK", json.dumps({"id": 1, "x": "y" * 20000}).encode()), PROJECT)
    assert effect == Effect("1", {})


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (answer("200 OK", b""), "HUB-E4205"),
        (answer("200 OK", b'{"ok": true}'), "HUB-E4205"),
        (answer("200 OK", b'{"id": null}'), "HUB-E4205"),
        (answer("200 OK", b'{"id": ""}'), "HUB-E4205"),
        (answer("200 OK", b'{"id": {}}'), "HUB-E4205"),
        (answer("200 OK", b"<html>sign in</html>"), "HUB-E4203"),
        (answer("200 OK", b'{"id": 1'), "HUB-E4203"),
        (answer("200 OK", b"\xff\xfe"), "HUB-E4203"),
        (answer("200 OK", b'{"id": 1}', length=500), "HUB-E4202"),
        (answer("409 Conflict"), "HUB-E4002"),
        (hang, "HUB-E4201"),
    ],
)
def test_an_answer_that_cannot_be_read_leaves_doubt(behaviour: Behaviour, code: str) -> None:
    error = _failure(behaviour, PROJECT)
    assert isinstance(error, UncertainError)
    assert isinstance(error, UnreadableError) == (code not in ("HUB-E4201", "HUB-E4202"))
    assert error.code == code


def test_a_conflict_without_a_key_is_a_refusal() -> None:
    assert type(_failure(answer("409 Conflict"), TASK)) is RejectedError


def test_a_look_up_finds_it() -> None:
    with Misbehaving(answer("200 OK", b'{"items": [{"id": "T-9"}]}')) as server:
        assert _target(server.url).find(TASK) == Effect("T-9", {"items": [{"id": "T-9"}]})
        received = server.received[0]
    assert (received.method, received.target) == ("GET", f"/tasks?mark={COMMAND_ID}")
    assert received.headers["authorization"] == "Bearer t0ken-of-ours"


def test_a_look_up_says_absent() -> None:
    with Misbehaving(answer("200 OK", b'{"items": []}')) as server:
        assert _target(server.url).find(TASK) is None


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"items": null}', b'{"items": [{}]}', b'{"items": [{"id": null}]}', b"[]", b'"none"'],
)
def test_a_look_up_that_says_neither_leaves_doubt(body: bytes) -> None:
    error = _failure(answer("200 OK", body), TASK, look=True)
    assert (type(error), error.code) == (UnreadableError, "HUB-E4206")


def test_a_look_up_fails_as_any_request() -> None:
    assert isinstance(_failure(answer("500 Oops"), TASK, look=True), RetryableError)
    assert isinstance(_failure(answer("401 No"), TASK, look=True), FatalError)
    assert isinstance(_failure(answer("404 Not Found"), TASK, look=True), RejectedError)
    assert isinstance(_failure(answer("200 OK", b"nothing"), TASK, look=True), UncertainError)


def test_secrets_from_the_environment_are_masked_in_what_is_shown() -> None:
    secret = "9f8e7d-environment"
    key = Filled(secret)
    key.spans = ((0, len(secret), 12),)
    with Misbehaving(answer("400 Bad", f"bad key {secret} of t0ken-of-ours".encode())) as server:
        made = instance(SETTINGS, URL=server.url)
        made.settings["send"]["project.create"]["headers"]["X-Key"] = key
        with pytest.raises(RejectedError) as caught:
            target(connect(made)).send(PROJECT)
        assert server.received[0].headers["x-key"] == secret
    assert caught.value.seen["reason"] == "HTTP 400: bad key *** of ***"


def test_text_from_the_environment_is_no_expression() -> None:
    text = "${command.name}"
    key = Filled(text)
    key.spans = ((0, len(text), 12),)
    with Misbehaving(answer("200 OK", b'{"id": 1}')) as server:
        made = instance(SETTINGS, URL=server.url)
        made.settings["send"]["project.create"]["headers"]["X-Key"] = key
        target(connect(made)).send(PROJECT)
        assert server.received[0].headers["x-key"] == text


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ("{basic: {user: hub, password: pass}}", "authorization", "Basic aHViOnBhc3M="),
        ("{header: {X-API-Key: k-1}}", "x-api-key", "k-1"),
    ],
)
def test_credentials_are_shown_as_the_settings_say(auth: str, header: str, value: str) -> None:
    with Misbehaving(answer("200 OK", b'{"id": 1}')) as server:
        _target(server.url, SETTINGS.replace("{bearer: t0ken-of-ours}", auth)).send(PROJECT)
        assert server.received[0].headers[header] == value


def test_a_check_asks_what_the_settings_name() -> None:
    with Misbehaving(answer("200 OK", b"{}")) as server:
        check = connect(instance(SETTINGS, URL=server.url)).check
        assert check is not None
        assert check() == f"{server.url}/me · HTTP 200"
        assert [(each.method, each.target) for each in server.received] == [("GET", "/me")]


def test_a_check_tells_refused_credentials() -> None:
    with Misbehaving(answer("401 Unauthorized")) as server:
        check = connect(instance(SETTINGS, URL=server.url)).check
        assert check is not None
        with pytest.raises(FatalError) as caught:
            check()
    assert caught.value.code == "HUB-E4003"


def test_a_check_without_an_address_only_knocks() -> None:
    text = SETTINGS.replace('check: {get: "%URL%/me"}', "")
    with Misbehaving(answer("200 OK", b"{}")) as server:
        check = connect(instance(text, URL=server.url)).check
        assert check is not None
        assert check() == server.url
        assert server.received == []
    with pytest.raises(RetryableError) as caught:
        check()
    assert caught.value.code == "HUB-E4001"


ANSWERS = """
send:
  message.send:
    post: "%URL%/robot"
    json: {text: "${command.text}"}
    done: response.errcode == 0
    credentials: response.errcode in [40001, 42001]
    retry: response.errcode == 45009
    once: {header: X-Key}
  project.create:
    post: "%URL%/projects"
    id: "${response.data.id}"
    done: response.code == 0
    refused: response.code < 0
  task.create:
    post: "%URL%/tasks"
    id: "${response.id}"
    find:
      get: "%URL%/tasks/${command.id}"
      id: "${response.id}"
      absent: "!has(response.id)"
      done: response.errcode == 0
      retry: response.errcode == 1
  task.update:
    post: "%URL%/tasks/${command.task}"
    find: {get: "%URL%/seen/${command.id}", id: "${response.id}", absent: "!has(response.id)"}
  card.update:
    post: "%URL%/cards"
    find: {get: "%URL%/seen/${command.id}", id: "${response.id}", absent: has(response.error)}
"""
MESSAGE = command("message.send", to="7", text="hi")


def _outcome(body: bytes, what: Any, look: bool = False) -> Effect | HubError | None:
    with Misbehaving(answer("200 OK", body)) as server:
        connected = _target(server.url, ANSWERS)
        try:
            found: Effect | None = (connected.find if look else connected.send)(what)
        except HubError as error:
            return error
        return found


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b'{"errcode": 42001, "errmsg": "expired"}', FatalError, "HUB-E4003"),
        (b'{"errcode": 45009}', RetryableError, "HUB-E4005"),
        (b'{"errcode": 93000, "errmsg": "no such robot"}', RejectedError, "HUB-E4006"),
        (b'{"errcode": null}', RejectedError, "HUB-E4006"),
        (b"{}", UnreadableError, "HUB-E4213"),
        (b"", UnreadableError, "HUB-E4213"),
        (b"[]", UnreadableError, "HUB-E4213"),
        (b"<html>", UnreadableError, "HUB-E4203"),
    ],
)
def test_an_answer_with_200_that_says_no_is_no(body: bytes, kind: type[HubError], code: str) -> None:
    error = _outcome(body, MESSAGE)
    assert isinstance(error, HubError)
    assert (type(error), error.code) == (kind, code)


def test_the_answer_that_says_no_is_shown() -> None:
    error = _outcome(b'{"errcode": 93000, "errmsg": "no such robot"}', MESSAGE)
    assert isinstance(error, HubError)
    assert "no such robot" in error.message()


def test_an_answer_that_says_done_needs_no_other_field() -> None:
    assert _outcome(b'{"errcode": 0}', MESSAGE) == Effect(None, {"errcode": 0})


def test_where_refusals_are_named_any_other_no_leaves_doubt() -> None:
    asked = command("project.create", name="a")
    assert _outcome(b'{"code": 0, "data": {"id": 7}}', asked) == Effect("7", {"code": 0, "data": {"id": 7}})
    assert type(_outcome(b'{"code": -1}', asked)) is RejectedError
    assert type(_outcome(b'{"code": 5}', asked)) is UnreadableError


def test_a_look_up_that_says_no_says_nothing_of_the_command() -> None:
    assert _outcome(b'{"errcode": 0}', TASK, look=True) is None
    assert _outcome(b'{"errcode": 0, "id": 7}', TASK, look=True) == Effect("7", {"errcode": 0, "id": 7})
    assert type(_outcome(b'{"errcode": 1}', TASK, look=True)) is RetryableError
    assert type(_outcome(b'{"errcode": 2}', TASK, look=True)) is RejectedError


@pytest.mark.parametrize(
    "body",
    [
        b'{"errcode": 42001, "errmsg": "access_token expired"}',
        b'{"errcode": "42001"}',
        b'{"code": 19021, "msg": "sign match fail"}',
        b'{"ok": false, "error": "channel_not_found"}',
        b'{"success": false}',
        b'{"error": {"code": -32600}}',
        b'{"errors": [{"message": "no"}]}',
    ],
)
def test_without_settings_an_answer_that_plainly_says_no_is_not_taken_for_done(body: bytes) -> None:
    """Nor does a look-up that says no say that the command is absent: it would be done twice."""
    error = _failure(answer("200 OK", body), command("message.send", to="lilei", text="hi"))
    assert (type(error), error.code) == (UnreadableError, "HUB-E4213")
    looked = _outcome(body, command("task.update", task="7"), look=True)
    assert isinstance(looked, UnreadableError)
    assert looked.code == "HUB-E4213"


@pytest.mark.parametrize(
    "body",
    [
        b'{"errcode": 0, "errmsg": "ok"}',
        b'{"code": 0, "msg": "success", "data": {}}',
        b'{"code": 200, "message": "\xe6\x93\x8d\xe4\xbd\x9c\xe6\x88\x90\xe5\x8a\x9f"}',
        b'{"code": 20000, "message": "done"}',
        b'{"code": "A-7", "message": "ok"}',
        b'{"ok": true, "error": null}',
        b'{"error": false, "errors": {}}',
        b'{"code": "SKU-7", "name": "bolt"}',
        b"[]",
        b'"ok"',
    ],
)
def test_without_settings_all_other_answers_say_done(body: bytes) -> None:
    assert isinstance(_sent(answer("200 OK", body), command("message.send", to="lilei", text="hi"))[0], Effect)


def test_an_error_may_be_the_word_for_absent() -> None:
    assert _outcome(b'{"error": "not found"}', command("card.update", card="7"), look=True) is None


def test_a_request_whose_every_2xx_would_be_success_is_remarked_on() -> None:
    remarks = connect(instance(SETTINGS, URL="http://pm.example")).remarks
    assert [(each.code, str(each.place)) for each in remarks] == [
        ("HUB-W4214", "send.message.send"),
        ("HUB-W4214", "send.task.update"),
    ]
    assert "send.message.send" in remarks[0].message()


@pytest.mark.parametrize("name", ["done", "credentials", "retry", "refused"])
@pytest.mark.parametrize("under", ["", ".find"])
def test_a_condition_that_cannot_be_read_has_its_place(name: str, under: str) -> None:
    wrong = f"{name}: response.errcode = 0"
    look = f'find: {{get: "%URL%/t", id: "${{response.id}}", absent: "false", {wrong}}}'
    text = f'send:\n  task.create: {{post: "%URL%/t", {look if under else wrong}}}\n'
    with pytest.raises(FatalError) as caught:
        connect(instance(text, URL="http://pm.example"))
    assert (caught.value.code, str(caught.value.place)) == ("HUB-E3110", f"send.task.create{under}.{name}")


@pytest.mark.parametrize(
    ("scheme", "header", "code"),
    [
        ("standard-webhooks", 'headers["webhook-id"]', None),
        ("standard-webhooks", 'headers["x-event"]', "HUB-W4215"),
        ("x-hub-signature-256", 'headers["webhook-id"]', "HUB-W4215"),
        ("x-hub-signature-256", "headers[body.which]", "HUB-W4215"),
        ("x-hub-signature-256", "body.kind", None),
    ],
)
def test_an_unsigned_header_that_is_believed_is_remarked_on(scheme: str, header: str, code: str | None) -> None:
    text = f"""
receive:
  verify: {{scheme: {scheme}, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}}
  events:
  - {{if: '{header} == "won"', type: crm.opportunity.lost, subject: "opportunity/crm/${{body.id}}"}}
"""
    found = [(each.code, str(each.place)) for each in connect(instance(text)).remarks]
    assert found == ([(code, "receive.events[0].if")] if code else [])
