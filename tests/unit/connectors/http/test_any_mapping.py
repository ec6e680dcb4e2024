"""Whatever stands in hub.yaml and in a body: a mistake with its code, an event, or something parked. Never a traceback.

`HUB_FUZZ=100000` tries as many of each instead of a sample.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.http.connector import HttpTarget, connect
from hub.errors import HubError, RejectedError
from hub.intake.intake import Intake, ParkReason
from hub.kit.api_client import ApiClient, ApiResponse
from hub.kit.connector import Delivery, Effect, Instance, WebhookReplies
from hub.ledger.ledger import Ledger
from hub.runtime.clock import FixedClock
from schemas.envelope import Event
from tests.fuzzing import inputs
from tests.pushing import NOON, SECRET, Staff
from tests.unit.hub.intake.instances import command

FIELDS = ["id", "type", "at", "amount", "owner", "items", "deep", "名", "a b", ""]
PATHS = [
    *(f"body.{name}" for name in ("id", "type", "at", "amount", "owner", "items", "deep.deep", "items[0].id")),
    "body",
]
EXPRESSIONS = st.one_of(
    st.sampled_from(PATHS),
    st.builds("decimal({})".format, st.sampled_from(PATHS)),
    st.builds("string({})".format, st.sampled_from(PATHS)),
    st.builds("timestamp(int({}) / 1000)".format, st.sampled_from(PATHS)),
    st.builds("size({})".format, st.sampled_from(PATHS)),
    st.builds("has({0}) ? {0} : null".format, st.sampled_from(PATHS[:6])),
    st.builds("{}.map(x, x.id)".format, st.sampled_from(PATHS)),
    st.sampled_from(
        ["headers['x']", "1 / 0", "9223372036854775807 + 1", "[][0]", "{'a': 1}", "body.", "nope", "'\\n'"]
    ),
)
TEXTS = st.one_of(
    st.builds("${{{}}}".format, EXPRESSIONS),
    st.builds("opportunity/crm/${{{}}}".format, EXPRESSIONS),
    st.text(max_size=12),
    st.sampled_from(["opportunity/crm/1", "2026-11-20T10:00:00Z", "0001-01-01T00:00:00Z", "23:59:60", "${", "$｛x｝"]),
)
CONDITIONS = st.one_of(
    st.builds("{} == {}".format, EXPRESSIONS, EXPRESSIONS), EXPRESSIONS, st.just("true"), st.text(max_size=6)
)
TYPES = st.sampled_from(
    ["crm.opportunity.won", "crm.opportunity.deleted", "work.task.created", "erp.stock.changed", "my.own.kind"]
)
EVENTS = st.fixed_dictionaries(
    {"type": TYPES, "subject": TEXTS},
    optional={
        "if": CONDITIONS,
        "version": TEXTS,
        "time": TEXTS,
        "actor": TEXTS,
        "belongs_to": TEXTS,
        "origin": TEXTS,
        "clears": st.lists(st.sampled_from(["owner", "name", "due", "x"]), max_size=3),
        "data": st.dictionaries(
            st.sampled_from(["name", "account", "amount", "currency", "owner", "title", "item", "quantity", "x"]), TEXTS
        ),
    },
)
RECEIVE = st.fixed_dictionaries(
    {
        "verify": st.just({"scheme": "standard-webhooks", "secret": SECRET}),
        "events": st.lists(EVENTS, min_size=1, max_size=3),
    },
    optional={"ignore": CONDITIONS, "answer": st.fixed_dictionaries({"if": CONDITIONS, "json": TEXTS})},
)
NUMBERS = st.one_of(st.integers(), st.integers(2**53, 2**70), st.floats(), st.sampled_from([0, -1, 10**400]))
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.text(max_size=12),
    st.sampled_from(["deal.won", "ping", "\x00", "\ud800", "9" * 400]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=12,
)
BODIES = st.one_of(
    st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1).map(lambda value: json.dumps(value).encode()),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"",
            b"{}",
            b'{"id": 1, "id": 2}',
            b'{"id": 1e400}',
            b"[" * 200,
            b"\xef\xbb\xbf{}",
            '{"id": "王"}'.encode("gbk"),
        ]
    ),
)


def told(error: HubError) -> None:
    """An error can be said in both languages."""
    assert error.message("en")
    assert error.fix("zh-CN")


def connected(given_: dict[str, Any]) -> Any:
    """The instance, or None for settings that are told to be wrong."""
    try:
        return connect(Instance("crm", "http", {"use": "http", **given_}))
    except HubError as error:
        told(error)
        return None


@given(RECEIVE, BODIES)
@settings(max_examples=inputs(250), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_push_is_an_event_or_parked_or_refused(receive: dict[str, Any], body: bytes) -> None:
    connector = connected({"receive": receive})
    if connector is None:
        return
    delivery = Delivery({"webhook-id": "m-1"}, body, NOON)
    receives: Any = connector.receives
    assert isinstance(receives, WebhookReplies)
    receives.reply(delivery)
    intake = Intake(None, Staff(), FixedClock(NOON))  # type: ignore[arg-type]  # nothing is written
    try:
        items = intake.items("crm", connector.receives, delivery)
    except RejectedError as error:
        told(error)
        return
    assert items
    for one, _ in items:
        if isinstance(one, ParkReason):
            assert one.code != "HUB-E6105", one.seen
        else:
            assert Event.from_json(one.to_json()) == one


@given(pushes=st.lists(st.tuples(RECEIVE, BODIES), min_size=1, max_size=5))
@settings(
    max_examples=inputs(20),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_whatever_is_taken_in_is_kept(pushes: list[tuple[dict[str, Any], bytes]], ledger: Ledger) -> None:
    intake = Intake(ledger, Staff(), FixedClock(NOON))
    for at, (receive, body) in enumerate(pushes):
        connector = connected({"receive": receive})
        if connector is None:
            continue
        try:
            accepted = intake.push("crm", connector.receives, Delivery({"webhook-id": f"m-{at}"}, body, NOON)).result()
        except RejectedError:
            continue
        assert accepted.id


SENDS = st.fixed_dictionaries(
    {"post": st.just("http://127.0.0.1:1/x")},
    optional={
        "id": st.builds("${{{}}}".format, EXPRESSIONS).map(lambda text: text.replace("body", "response")),
        **{
            name: CONDITIONS.map(lambda text: text.replace("body", "response"))
            for name in ("done", "credentials", "retry", "refused")
        },
    },
)


@given(SENDS, BODIES)
@settings(max_examples=inputs(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_answer_is_an_effect_or_an_error_of_ours(send: dict[str, Any], body: bytes) -> None:
    find = {"get": "http://127.0.0.1:1/y", "id": send.get("id", "${response.id}"), "absent": send.get("done", "false")}
    connector = connected({"send": {"message.send": {**send, "find": find}}})
    if connector is None:
        return
    target: HttpTarget = connector.sends
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ApiClient, "call", lambda *_args, **_named: ApiResponse(200, body))
        for ask in (target.send, target.find):
            try:
                found = ask(command("message.send", to="7", text="hi"))
            except HubError as error:
                told(error)
                continue
            assert found is None or isinstance(found, Effect)
