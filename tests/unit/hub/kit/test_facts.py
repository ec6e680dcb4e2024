"""A connector's fact becomes an event, or is refused with field and reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import RejectedError
from hub.kit.connector import Fact
from hub.kit.facts import IntakeContext, event_of, person_fields
from schemas.domains import crm, work
from schemas.envelope import MAX_BYTES, Event, derived_id, format_time
from schemas.registry import EVENTS, event_spec
from tests.pushing import NOON, Staff, fact

DOOR = IntakeContext("crm", Staff(), NOON, "fallback")


def event(**more: Any) -> Event:
    return event_of(fact(**more), DOOR)


def test_an_event_says_what_happened_under_an_id_that_derives_from_the_source() -> None:
    told = event(version="7")
    assert told.id == derived_id("crm", "crm.opportunity.changed", "opportunity/crm/O-1", "7")
    assert told.source == "/connectors/crm"
    assert told.dataschema == "urn:hub:crm.opportunity.changed:1"
    assert told.subjectversion == "7"
    assert told.time == told.recordedtime == format_time(NOON)


def test_the_id_stands_still_when_everything_but_the_source_changes() -> None:
    later = IntakeContext("crm", Staff({}), NOON + timedelta(days=9), "other")
    assert event_of(fact(version="7", data={**fact().data, "name": "x"}), later).id == event(version="7").id


def test_a_fact_without_a_version_takes_that_of_its_delivery() -> None:
    told = event(version="")
    assert told.id == derived_id("crm", "crm.opportunity.changed", "opportunity/crm/O-1", "fallback")
    assert told.subjectversion is None


def test_accounts_become_persons_and_unknown_ones_stay_accounts() -> None:
    assert event(actor="U-3").actor == "person/wang.fang"
    assert event(actor="U-9").actor == "account/crm/U-9"
    assert event(actor="person/li.lei").actor == "person/li.lei"
    assert event().data["owner"] == "person/wang.fang"
    assert event(data={**fact().data, "owner": "U-9"}).data["owner"] == "account/crm/U-9"


@pytest.mark.parametrize(("owner", "becomes"), [(7, "account/crm/7"), ("王 芳", "account/crm/王 芳")])
def test_accounts_may_be_numbers_and_words(owner: object, becomes: str) -> None:
    assert event(data={**fact().data, "owner": owner}).data["owner"] == becomes


def test_an_empty_account_is_nobody() -> None:
    assert "owner" not in event(data={**fact().data, "owner": ""}).data


def test_only_fields_that_the_catalogue_marks_name_persons() -> None:
    assert person_fields(crm.Opportunity) == {"owner"}
    assert person_fields(work.Task) == {"assignee", "by"}
    assert event(data={**fact().data, "name": "U-3"}).data["name"] == "U-3"


def test_fields_of_the_users_own_are_kept_and_those_not_told_stay_untold() -> None:
    told = event(data={**fact().data, "region": "华东"})
    assert told.data["region"] == "华东"
    assert "by" not in event_of(fact("work.task.completed", "task/pm/1"), DOOR).data


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"amount": "88万"}, "amount"),
        ({"amount": 880000.5}, "amount"),
        ({"currency": "RMB¥"}, "currency"),
        ({"name": None}, "name"),
        ({"owner": ["U-3"]}, "owner"),
    ],
)
def test_data_that_the_catalogue_does_not_allow_is_refused_by_field(data: dict[str, Any], field: str) -> None:
    with pytest.raises(RejectedError) as refused:
        event(data={**fact().data, **data})
    assert refused.value.code == "HUB-E6101"
    assert refused.value.seen["field"] == field


def test_a_refusal_shows_no_value() -> None:
    with pytest.raises(RejectedError) as refused:
        event(data={**fact().data, "currency": "sesame-open"})
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"time": NOON.replace(tzinfo=None)}, "data"),
        ({"belongs_to": "no reference"}, "partitionkey"),
    ],
)
def test_what_fits_no_envelope_is_refused(more: dict[str, Any], field: str) -> None:
    with pytest.raises(RejectedError) as refused:
        event(**more)
    assert (refused.value.code, refused.value.seen["field"]) == ("HUB-E6102", field)


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(RejectedError):
        event(data={**fact().data, "name": "\ud800"})
    with pytest.raises(RejectedError):
        event(data={**fact().data, "note": {"deep": "\ud800"}})


def test_an_event_may_be_so_large_and_no_larger() -> None:
    room = MAX_BYTES - len(event(data={**fact().data, "text": ""}).to_json())
    assert len(event(data={**fact().data, "text": "x" * room}).to_json()) == MAX_BYTES
    with pytest.raises(RejectedError) as refused:
        event(data={**fact().data, "text": "x" * (room + 1)})
    assert (refused.value.code, refused.value.seen["size"]) == ("HUB-E6103", MAX_BYTES + 1)


def test_a_clock_that_is_far_ahead_is_not_believed_but_remembered() -> None:
    told = event(time=NOON + timedelta(hours=20))
    assert told.time == format_time(NOON + timedelta(minutes=5))
    assert told.claimedtime == format_time(NOON + timedelta(hours=20))
    near = event(time=NOON + timedelta(minutes=5))
    assert (near.time, near.claimedtime) == (format_time(NOON + timedelta(minutes=5)), None)


@pytest.mark.parametrize(
    "time",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
        NOON + timedelta(days=2),
        datetime(9999, 12, 31, tzinfo=UTC),
    ],
)
def test_a_time_that_cannot_be_is_not_believed(time: datetime) -> None:
    with pytest.raises(RejectedError) as refused:
        event(time=time)
    assert (refused.value.code, refused.value.seen["time"]) == ("HUB-E6110", time.isoformat())
    assert event(time=datetime(1970, 1, 1, tzinfo=UTC)).time == "1970-01-01T00:00:00.000000Z"


def test_the_case_is_left_open_between_its_anchor_and_itself() -> None:
    assert event().partitionkey == "opportunity/crm/O-1"
    assert event(belongs_to="account/crm/A-1").partitionkey == "account/crm/A-1"


def test_an_echo_names_the_command_that_it_echoes() -> None:
    told = event(origin="c-1")
    assert (told.origin, told.causationid) == ("c-1", "c-1")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner), max_leaves=5
)


@given(
    st.dictionaries(st.text(), _json),
    st.just("task/pm/1") | st.text(max_size=50),
    st.datetimes(timezones=st.just(UTC)),
)
def test_whatever_is_told_becomes_an_event_or_is_refused(data: dict[str, Any], subject: str, time: datetime) -> None:
    told = Fact("my.own.type", subject, "1", time, data)
    try:
        made = event_of(told, DOOR)
    except RejectedError:
        return
    assert Event.from_json(made.to_json()) == made


def test_a_source_can_empty_a_field_and_only_one_without_a_value() -> None:
    told = event(data={**fact().data, "owner": None, "note": None}, clears=("owner", "name", "gone", "owner"))
    assert told.clears == ["owner", "gone"]
    assert (told.data["owner"], told.data["gone"], told.data["note"]) == (None, None, None)
    assert event(data={**fact().data, "owner": ""}, clears=("owner",)).clears == ["owner"]
    assert event().clears is None


def test_a_field_that_must_be_there_cannot_be_emptied() -> None:
    with pytest.raises(RejectedError) as refused:
        event(data={**fact().data, "name": None}, clears=("name",))
    assert (refused.value.code, refused.value.seen["field"]) == ("HUB-E6101", "name")


@pytest.mark.parametrize("type_", sorted(name for name in EVENTS if name.endswith(".deleted")))
def test_a_thing_can_be_deleted_with_nothing_said_of_it(type_: str) -> None:
    told = event_of(Fact(type_, "thing/crm/1", "1", NOON, {}), DOOR)
    assert (told.type, told.data, event_spec(type_).stage) == (type_, {}, "deleted")
