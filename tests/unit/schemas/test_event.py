"""The envelope: CloudEvents that others read and write too, ids that stay, times whose text order is their order."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.envelope import (
    HUB_INSTANCE,
    NAMESPACE,
    Command,
    Event,
    Timestamp,
    derived_id,
    format_time,
    instance_of,
    parse_time,
    promise,
    promised,
)
from schemas.registry import EVENTS
from tests.events import AT, command, event, won

EVERYTHING: dict[str, Any] = {
    "claimedtime": "2031-01-01T00:00:00.000000Z",
    "causationid": "cause",
    "sequence": "41",
    "outbox": "o-1",
    "actor": "person/wang.fang",
    "origin": "command-1",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}
moments = st.datetimes(timezones=st.just(UTC) | st.just(timezone(timedelta(hours=8))), min_value=datetime(1, 1, 2))  # noqa: DTZ001  # hypothesis adds the zone


@pytest.mark.parametrize(
    "given_event", [won(), won(**EVERYTHING), *(event(name, "task/pm/7") for name in EVENTS)], ids=str
)
def test_the_sdk_of_cloudevents_reads_our_events(given_event: Event) -> None:
    read = JSONFormat().read(None, given_event.to_json())
    told = given_event.model_dump(exclude_none=True)
    assert read.get_data() == told.pop("data")
    assert format_time(read.get_time() or datetime.min) == told.pop("time")  # noqa: DTZ901  # stamp refuses it
    attributes = {name: value for name, value in read.get_attributes().items() if name != "time"}
    assert attributes == told


def test_we_read_what_the_sdk_of_cloudevents_writes() -> None:
    wanted = won(**EVERYTHING, time="2026-11-20T02:00:00.123456Z")
    attributes = wanted.model_dump(exclude_none=True, exclude={"data", "time"})
    theirs = CloudEvent({**attributes, "time": parse_time(wanted.time)}, dict(wanted.data))
    assert Event.from_json(JSONFormat().write(theirs)) == wanted


def test_our_record_is_the_kafka_binding_s_structured_mode_keyed_by_the_partition_key() -> None:
    wanted = won()
    theirs = from_kafka(KafkaMessage({}, wanted.case.encode(), wanted.to_json()), JSONFormat())
    assert theirs.get_extension("partitionkey") == wanted.case
    again = to_structured(theirs, JSONFormat())
    assert again.key == wanted.case
    assert orjson.loads(again.value)["data"] == wanted.data
    assert again.headers == {"content-type": b"application/cloudevents+json"}


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("specversion", "0.3"),
        ("id", ""),
        ("type", "Won"),
        ("type", "crm.won"),
        ("subject", "O-1"),
        ("subject", "opportunity/crm/"),
        ("time", "2026-11-20T02:00:00Z"),
        ("time", "２０２６-11-20T02:00:00.000000Z"),
        ("recordedtime", None),
        ("datacontenttype", "text/xml"),
        ("partitionkey", ""),
        ("sequence", "-1"),
        ("sequence", "４"),
        ("data", []),
    ],
)
def test_an_envelope_with_a_wrong_attribute_is_refused(field: str, wrong: object) -> None:
    told = {**won().model_dump(exclude_none=True), field: wrong}
    with pytest.raises(ValidationError) as refused:
        Event.from_json(orjson.dumps(told))
    assert [error["loc"][0] for error in refused.value.errors()] == [field]


def test_an_attribute_that_is_not_known_is_passed_over() -> None:
    assert Event.from_json(orjson.dumps({**won().model_dump(exclude_none=True), "newer": 1})) == won()


def test_attributes_that_are_not_set_are_not_written() -> None:
    assert None not in orjson.loads(won().to_json()).values()


def test_a_command_is_read_back_as_it_was_written() -> None:
    asked = command(won(), project=promise("p-1"), title="启动会")
    assert Command.from_json(asked.to_json()) == asked


def test_ids_stay_what_they_were() -> None:
    """A log of last year gives these ids: whoever changes them has every old command done again."""
    assert derived_id("command", "won-deal-to-delivery", "opportunity/crm/O-1", "won#1", "0", "") == (
        "9d0a4327-7a7a-5ba9-8761-afdb76529b1e"
    )
    assert derived_id("completed", "project/pm/P-1") == "60c0f49d-6e2c-586a-a722-1a240a70ed8a"


parts = st.lists(st.text(alphabet=st.sampled_from("ab|\\"), max_size=4), min_size=1, max_size=3)


@given(told=st.lists(st.text(max_size=8), max_size=3))
def test_an_id_is_a_uuid5(told: list[str]) -> None:
    escaped = "|".join(part.replace("\\", "\\\\").replace("|", "\\|") for part in told)
    assert derived_id(*told) == str(uuid.uuid5(NAMESPACE, escaped))


@given(one=parts, other=parts)
def test_different_parts_give_different_ids(one: list[str], other: list[str]) -> None:
    assert (derived_id(*one) == derived_id(*other)) == (one == other)


@given(one=moments, other=moments)
def test_the_text_order_of_stamps_is_the_order_of_their_moments(one: datetime, other: datetime) -> None:
    assert (format_time(one) < format_time(other)) == (one < other)
    assert parse_time(format_time(one)) == one
    TypeAdapter(Timestamp).validate_python(format_time(one))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-11-20T10:00:00+08:00", "2026-11-20T02:00:00.000000Z"),
        ("2026-11-20T02:00:00Z", "2026-11-20T02:00:00.000000Z"),
        ("2026-11-20T02:00:00.5Z", "2026-11-20T02:00:00.500000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
        ("2026-11-20t02:00:00z", "2026-11-20T02:00:00.000000Z"),
        ("2026-11-20t10:00:00.25+08:00", "2026-11-20T02:00:00.250000Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000000Z"),
        ("2016-12-31T23:59:60.75z", "2017-01-01T00:00:00.000000Z"),
        ("2017-01-01T07:59:60+08:00", "2017-01-01T00:00:00.000000Z"),
        ("2017-01-01T05:29:60+05:30", "2017-01-01T00:00:00.000000Z"),
        ("1990-12-31T15:59:60-08:00", "1991-01-01T00:00:00.000000Z"),
    ],
)
def test_any_rfc_3339_time_becomes_a_stamp(text: str, same: str) -> None:
    assert format_time(parse_time(text)) == same


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "2026-11-20T23:59:61Z", "2026-11-20T12:00:60Z", "2026-11-20T23:59:60+08:00", "2026-13-01T00:00:00Z",
        "9999-12-31T23:59:60Z", "0001-01-01T00:00:00+08:00", "9999-12-31T23:59:59-08:00", "2026-11-20T23:59:60",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # whatever it says
        parse_time(text)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        format_time(datetime(2026, 11, 20))  # noqa: DTZ001  # that is the point
    with pytest.raises(ValueError, match="zone"):
        parse_time("2026-11-20T02:00:00")


def test_a_promise_is_told_from_plain_values() -> None:
    assert promised(promise("c-1")) == "c-1"
    for plain in ("c-1", None, {}, {"$promise": 1}, {"$promise": "c-1", "more": 1}, ["$promise"]):
        assert promised(plain) is None


def test_an_event_names_its_case_kind_and_version() -> None:
    told = event("work.task.created", "task/pm/7", case="opportunity/crm/O-1")
    assert (told.case, told.kind, told.version, told.time) == ("opportunity/crm/O-1", "task", 1, AT)


@pytest.mark.parametrize(
    ("source", "instance"),
    [
        ("/connectors/crm", "crm"),
        ("/connectors/", ""),
        ("/hub/rules", HUB_INSTANCE),
        ("/hub/executor/crm", HUB_INSTANCE),
        ("crm", HUB_INSTANCE),
    ],
)
def test_an_event_is_of_the_instance_that_told_it_or_the_hubs_own(source: str, instance: str) -> None:
    assert instance_of(source) == instance
