"""Trying events on rules: in their order, in memory, from files as short as trials."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from hub.errors import FatalError
from hub.rules.explaining import fold_events, read_events, try_events
from schemas.envelope import Event
from tests.unit.hub.rules.homes import HEAD, TASK, event, rules, world

WON = (
    '{"type": "crm.opportunity.won", "subject": "opportunity/crm/O-1", "time": "2026-11-20T02:00:00Z", '
    '"data": {"name": "A", "account": "B", "amount": "1", "currency": "CNY", "owner": "U-3"}}'
)


def read(tmp_path: Path, text: str) -> list[Event]:
    file = tmp_path / "events.yaml"
    file.write_text(text, "utf-8")
    return read_events(file, world().people, {})


def test_files_hold_one_event_or_many_short_or_whole(tmp_path: Path) -> None:
    (one,) = read(tmp_path, WON)
    assert (one.subject, one.data["owner"]) == ("opportunity/crm/O-1", "person/wang.fang")
    assert len(read(tmp_path, f"[{WON}, {WON}]")) == 2
    assert len(read(tmp_path, f"given: [{WON}]")) == 1
    assert read(tmp_path, orjson.dumps(event().model_dump()).decode()) == [event()]


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("{type: crm.opportunity.won, subject: a/b/c, time: 1}", "HUB-E3184", "events.yaml:1:1"),
        ("[{tipe: x, subject: a/b/c, time: 1}]", "HUB-E3005", "events.yaml:1:3"),
        (WON.replace("2026-11-20T02:00:00Z", "noon"), "HUB-E3150", "events.yaml:1:76"),
        ("{", "HUB-E3002", "events.yaml:1:2"),
    ],
)
def test_a_mistake_has_its_place(tmp_path: Path, text: str, code: str, place: str) -> None:
    with pytest.raises(FatalError) as raised:
        read(tmp_path, text)
    assert raised.value.code == code
    assert str(raised.value.place) == place


def test_the_second_time_is_seen_in_the_light_of_the_first() -> None:
    first, second = try_events(rules(HEAD + TASK), [event(), event(id="e2")])
    assert [verdict.outcome for verdict in (*first.outcomes, *second.outcomes)] == ["asks", "repeat"]


def test_an_event_is_tried_on_its_case_as_it_was() -> None:
    found = rules(HEAD + TASK)
    case = fold_events(found, [event()])
    assert [each.outcomes[0].outcome for each in try_events(found, [event(id="e2")], case)] == ["repeat"]
    assert fold_events(found, []) is None


def test_a_record_that_repeats_is_passed_over() -> None:
    assert len(try_events(rules(HEAD + TASK), [event(), event()])) == 1
