"""What a push says: facts, or why one cannot be told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from connectors.http.connector import connect
from hub.errors import FatalError, RejectedError
from hub.kit.connector import Delivery, Fact, Unmapped, WebhookReplies
from tests.unit.hub.intake.instances import instance

RECEIVED = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
SETTINGS = """
receive:
  verify: {scheme: standard-webhooks, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}
  events:
    - if: body.type == "deal.won"
      type: crm.opportunity.won
      subject: "opportunity/crm/${body.id}"
      version: "${body.version}"
      time: "${body.at}"
      data: {name: "${body.title}", account: 海川, amount: "${decimal(body.amount)}", currency: CNY, owner: "${body.owner}"}
"""
PUSH: dict[str, Any] = {
    "type": "deal.won",
    "id": "O-1",
    "version": 3,
    "at": "2026-11-20T10:00:00+08:00",
    "title": "智慧园区",
    "amount": 880000,
    "owner": 7,
}


def _told(body: Any, settings: str = SETTINGS, **headers: str) -> tuple[Fact | Unmapped, ...]:
    connector = connect(instance(settings, name="crm"))
    assert connector.receives is not None
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return connector.receives.read(Delivery(headers, raw, RECEIVED))


def _fact(settings: str = SETTINGS, **changes: Any) -> Fact:
    told = _told(PUSH | changes, settings)
    assert len(told) == 1
    assert isinstance(told[0], Fact), told[0]
    return told[0]


def _unmapped(settings: str = SETTINGS, **changes: Any) -> Unmapped:
    told = _told(PUSH | changes, settings)
    assert len(told) == 1
    assert isinstance(told[0], Unmapped), told[0]
    return told[0]


def test_a_push_that_matches_is_a_fact() -> None:
    assert _fact() == Fact(
        type="crm.opportunity.won",
        subject="opportunity/crm/O-1",
        version="3",
        time=datetime(2026, 11, 20, 2, tzinfo=UTC),
        data={"name": "智慧园区", "account": "海川", "amount": "880000", "currency": "CNY", "owner": "7"},
    )


def test_a_push_that_matches_nothing_says_nothing() -> None:
    assert _told(PUSH | {"type": "deal.viewed"}) == ()


def test_every_entry_that_matches_gives_a_fact() -> None:
    second = (
        SETTINGS
        + """
    - if: body.amount > 100
      type: erp.order.confirmed
      subject: "order/crm/${body.id}"
      belongs_to: "opportunity/crm/${body.id}"
      actor: "${body.owner}"
      origin: "${has(body.mark) ? body.mark : null}"
      time: "${body.at}"
"""
    )
    told = _told(PUSH, second)
    assert [fact.type for fact in told if isinstance(fact, Fact)] == ["crm.opportunity.won", "erp.order.confirmed"]
    order = told[1]
    assert isinstance(order, Fact)
    assert (order.belongs_to, order.actor, order.origin) == ("opportunity/crm/O-1", "7", None)
    marked = _told(PUSH | {"mark": "c-1"}, second)[1]
    assert isinstance(marked, Fact)
    assert marked.origin == "c-1"


def test_amounts_keep_every_digit() -> None:
    raw = orjson.dumps(PUSH).replace(b"880000", b"12345678901234567.80")
    fact = _told(raw)[0]
    assert isinstance(fact, Fact)
    assert fact.data["amount"] == "12345678901234567.80"


@pytest.mark.parametrize(
    ("at", "moment"),
    [
        ("2026-11-20T10:00:00+08:00", datetime(2026, 11, 20, 2, tzinfo=UTC)),
        ("2026-11-20T02:00:00Z", datetime(2026, 11, 20, 2, tzinfo=UTC)),
        ("2026-11-20T02:00:00.123456Z", datetime(2026, 11, 20, 2, 0, 0, 123456, tzinfo=UTC)),
        ("2026-11-20 10:00:00", datetime(2026, 11, 20, 2, tzinfo=UTC)),
        ("2026-11-20 10:00", datetime(2026, 11, 20, 2, tzinfo=UTC)),
        ("2026-11-20", datetime(2026, 11, 19, 16, tzinfo=UTC)),
    ],
)
def test_a_time_without_a_zone_is_the_hubs(at: str, moment: datetime) -> None:
    assert _fact(at=at).time == moment


def test_rfc_3339_is_read_whole() -> None:
    after = datetime(2016, 12, 31, 16, tzinfo=UTC)
    for at in ("2016-12-31T15:59:59Z", "2016-12-31t15:59:59z"):
        assert _fact(at=at).time == after - timedelta(seconds=1)
    assert _fact(at="2017-01-01T07:59:60+08:00").time == datetime(2017, 1, 1, tzinfo=UTC)
    assert _fact(at="2017-01-01 07:59:60").time == datetime(2017, 1, 1, tzinfo=UTC)
    assert _unmapped(at="2016-12-31T15:59:60Z").code == "HUB-E4222"


def test_an_instance_may_live_in_another_zone() -> None:
    elsewhere = SETTINGS.replace("  events:", "  timezone: Europe/Berlin\n  events:")
    assert _fact(elsewhere, at="2026-11-20 10:00:00").time == datetime(2026, 11, 20, 9, tzinfo=UTC)


def test_milliseconds_are_written_as_a_timestamp() -> None:
    millis = SETTINGS.replace("${body.at}", "${timestamp(int(body.at) / 1000)}")
    assert _fact(millis, at=1763604000000).time == datetime(2025, 11, 20, 2, tzinfo=UTC)


def test_without_time_and_version_the_delivery_says_them() -> None:
    bare = SETTINGS.replace('      version: "${body.version}"\n', "").replace('      time: "${body.at}"\n', "")
    assert (_fact(bare).time, _fact(bare).version) == (RECEIVED, "")


def test_headers_can_be_read() -> None:
    by_header = SETTINGS.replace("body.type ==", "headers['x-event'] ==")
    assert len(_told(PUSH, by_header, **{"x-event": "deal.won"})) == 1


@pytest.mark.parametrize(
    ("changes", "code", "place"),
    [
        ({"at": "yesterday"}, "HUB-E4222", "receive.events[0].time"),
        ({"at": 1763604000}, "HUB-E4222", "receive.events[0].time"),
        ({"at": "0001-01-01 00:00:00"}, "HUB-E4222", "receive.events[0].time"),
        ({"at": None}, "HUB-E4222", "receive.events[0].time"),
        ({"version": 1.5}, "HUB-E4222", "receive.events[0].version"),
        ({"version": True}, "HUB-E4222", "receive.events[0].version"),
        ({"version": None}, "HUB-E4222", "receive.events[0].version"),
        ({"version": ""}, "HUB-E4222", "receive.events[0].version"),
        ({"version": "v" * 401}, "HUB-E4222", "receive.events[0].version"),
        ({"amount": "much"}, "HUB-E3126", "receive.events[0].data.amount"),
        ({"amount": "1" * 21}, "HUB-E4222", "receive.events[0].data.amount"),
        ({"title": None}, "HUB-E4222", "receive.events[0].data.name"),
    ],
)
def test_what_cannot_be_told_is_parked_with_its_object(changes: dict[str, Any], code: str, place: str) -> None:
    unmapped = _unmapped(**changes)
    assert (unmapped.code, unmapped.subject) == (code, "opportunity/crm/O-1")
    assert unmapped.place is not None
    assert unmapped.place.file == place
    assert orjson.loads(unmapped.raw)["id"] == "O-1"
    assert unmapped.seen["instance"] == "crm"


def test_a_missing_field_is_no_empty_text() -> None:
    push = {name: value for name, value in PUSH.items() if name != "title"}
    told = _told(push)
    assert isinstance(told[0], Unmapped)
    assert (told[0].code, told[0].subject) == ("HUB-E3120", "opportunity/crm/O-1")


def test_a_field_that_the_type_needs_is_named() -> None:
    unmapped = _unmapped(SETTINGS.replace("currency: CNY, ", ""))
    assert (unmapped.code, unmapped.seen["field"]) == ("HUB-E4223", "currency")


@pytest.mark.parametrize("id_", ["", None, True, [], {}, 1.5, "\n", " x"])
def test_without_a_subject_it_is_parked_alone(id_: Any) -> None:
    unmapped = _unmapped(id=id_)
    assert unmapped.subject is None
    assert unmapped.code in ("HUB-E4222", "HUB-E3125")


@pytest.mark.parametrize("body", [{"ping": True}, [], "text", 7, None])
def test_a_condition_that_cannot_be_told_is_parked_once(body: Any) -> None:
    twice = (
        SETTINGS
        + """
    - if: body.type == "deal.lost"
      type: crm.opportunity.lost
      subject: "opportunity/crm/${body.id}"
"""
    )
    told = _told(body, twice)
    assert len(told) == 1
    assert isinstance(told[0], Unmapped)
    assert told[0].place is not None
    assert told[0].place.file == "receive.events[0].if"


def test_an_entry_that_cannot_be_told_does_not_hide_another() -> None:
    first = (
        SETTINGS.replace('body.type == "deal.won"', "body.nothing == 1")
        + """
    - type: crm.opportunity.lost
      subject: "opportunity/crm/${body.id}"
      data: {name: a, account: b, amount: "1", currency: CNY}
"""
    )
    fact, unmapped = _told(PUSH, first)
    assert isinstance(fact, Fact)
    assert isinstance(unmapped, Unmapped)


HALF = r"cut \ud83d"
"""The end of a remark that was cut after 255 UTF-16 units."""


def test_half_a_character_in_a_field_that_nobody_reads_does_no_harm() -> None:
    raw = orjson.dumps(PUSH | {"remark": "?", "more": {"?": ["?"]}}).replace(b"?", HALF.encode())
    assert _told(raw) == _told(PUSH)


@pytest.mark.parametrize(("field", "place"), [("title", "data.name"), ("id", "subject"), ("version", "version")])
def test_half_a_character_that_an_event_would_hold_is_parked(field: str, place: str) -> None:
    raw = orjson.dumps(PUSH | {field: "?"}).replace(b"?", HALF.encode() if field == "title" else rb"\u0000x")
    (unmapped,) = _told(raw)
    assert isinstance(unmapped, Unmapped)
    assert (unmapped.code, unmapped.seen["field"]) == ("HUB-E3133", place)
    assert str(unmapped.place).startswith(f"receive.events[0].{place}")


def test_the_character_that_marks_a_lost_one_is_a_character_like_others() -> None:
    assert isinstance(_told(PUSH | {"title": "\ufffd"})[0], Fact)


def test_a_byte_order_mark_is_passed_over() -> None:
    assert _told(b"\xef\xbb\xbf" + orjson.dumps(PUSH)) == _told(PUSH)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"{} {}", b'{"a":1,"a":2}', b'{"a":NaN}', b"[" * 100_000])
def test_what_is_no_json_is_rejected(raw: bytes) -> None:
    with pytest.raises(RejectedError):
        _told(raw)


def test_one_connector_serves_many_threads_alike() -> None:
    from concurrent.futures import ThreadPoolExecutor

    connector = connect(instance(SETTINGS, name="crm"))
    assert connector.receives is not None
    receiver = connector.receives

    def read(at: int) -> Any:
        told = receiver.read(Delivery({}, orjson.dumps(PUSH | {"id": f"O-{at}"}), RECEIVED))
        assert isinstance(told[0], Fact)
        return told[0].subject

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(400))) == [f"opportunity/crm/O-{at}" for at in range(400)]


def test_the_facts_of_an_error_are_its_own() -> None:
    """Where the event's type has the name of a fact that the error tells, the error's counts."""
    body = orjson.dumps(PUSH).replace(b'"O-1"', b"18446744073709551617")
    (told,) = _told(body)
    assert isinstance(told, Unmapped)
    assert (told.code, told.seen["type"], told.seen["instance"]) == ("HUB-E3125", "double", "crm")
    (told,) = _told(PUSH, SETTINGS.replace('body.type == "deal.won"', "body.type"))
    assert isinstance(told, Unmapped)
    assert (told.code, told.seen["type"]) == ("HUB-E3122", "string")


def test_a_mapping_says_which_fields_null_empties() -> None:
    clearing = SETTINGS.replace("      data:", "      clears: [owner, due]\n      data:")
    assert _fact(clearing, owner=None).clears == ("owner", "due")
    assert _fact(clearing, owner="").clears == ("owner", "due")
    assert _fact(clearing).clears == ("due",)
    assert _fact(owner=None).clears == ()
    required = SETTINGS.replace("      data:", "      clears: [name]\n      data:")
    unmapped = _unmapped(required, title=None)
    assert (unmapped.code, str(unmapped.place)) == ("HUB-E4222", "receive.events[0].data.name")


def test_a_mapping_can_tell_that_a_thing_was_deleted() -> None:
    gone = SETTINGS.replace("crm.opportunity.won", "crm.opportunity.deleted")
    gone = gone[: gone.index("      data:")]
    assert _fact(gone).type == "crm.opportunity.deleted"


PINGS = [
    b"{}",
    b'{"zen": "Keep it logically awesome.", "hook_id": 7}',
    b'{"event": "ping"}',
    b'{"action": "PING"}',
]


@pytest.mark.parametrize("body", PINGS)
def test_a_push_that_only_tries_the_address_tells_nothing(body: bytes) -> None:
    assert _told(body) == ()


def test_any_other_push_whose_condition_cannot_be_tested_is_kept() -> None:
    for body in (b'{"deal": 7}', b"[]", b"7", b'{"zen": "x", "deal": {}}'):
        (told,) = _told(body)
        assert isinstance(told, Unmapped), body


def test_a_mapping_of_pings_is_believed() -> None:
    pinged = SETTINGS.replace('body.type == "deal.won"', 'body.event == "ping"').replace("${body.version}", "1")
    assert len(_told({**PUSH, "event": "ping"}, pinged)) == 1


REPLIES = SETTINGS.replace(
    "  events:",
    """  ignore: body.kind == "heartbeat"
  answer: {if: body.type == "url_verification", json: {challenge: "${body.challenge}"}}
  events:""",
)


def _reply(body: bytes, settings: str = REPLIES) -> bytes | None:
    receives: Any = connect(instance(settings, name="crm")).receives
    assert isinstance(receives, WebhookReplies)
    return receives.reply(Delivery({}, body, RECEIVED))


def test_a_challenge_is_answered_and_tells_nothing() -> None:
    body = b'{"type": "url_verification", "challenge": "\xe5\xb0\x8f\xe6\x98\x8e<7>"}'
    assert _reply(body) == '{"challenge": "小明<7>"}'.encode()
    assert _told(body, REPLIES) == ()
    assert _reply(body, SETTINGS) is None


@pytest.mark.parametrize("body", [b'{"type": "url_verification"}', b"{}", b"[]", b"no json", orjson.dumps(PUSH)])
def test_what_is_no_challenge_is_answered_as_ever(body: bytes) -> None:
    assert _reply(body) is None


def test_what_is_to_be_ignored_tells_nothing() -> None:
    assert _told({"kind": "heartbeat"}, REPLIES) == ()
    assert len(_told(PUSH, REPLIES)) == 1


@pytest.mark.parametrize("path", ["ignore", "answer.if", "answer.json.challenge"])
def test_a_mistake_in_ignore_or_answer_has_its_place(path: str) -> None:
    texts = {"ignore": 'body.kind == "heartbeat"', "answer.if": 'body.type == "url_verification"'}
    wrong = REPLIES.replace(texts.get(path, "${body.challenge}"), "${body.}" if path.endswith("challenge") else "body.")
    with pytest.raises(FatalError) as caught:
        connect(instance(wrong, name="crm"))
    assert str(caught.value.place) == f"receive.{path}"
