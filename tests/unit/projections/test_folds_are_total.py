"""Whatever event gets past the door, no fold fails on it, and folding it again changes nothing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hub.kit.records import read_event
from hub.log.event_log import Record
from hub.projector import registry
from hub.projector.folding import fold
from hub.projector.rebuild import row_hash
from schemas.envelope import Event
from schemas.registry import EVENTS
from tests.board_events import Deal, event

DEAL = Deal(1)
SUBJECTS = [
    *("task/pm/1", "request/pm/c1", "command/pm/c1", "command/pm", "project/pm/P-1", "opportunity/crm/O-1", "task/pm"),
    *("person/li.lei", "rule/hub/x", "opportunity/crm/O-1/with/slashes", "item/stock/²", "task/pm/\x00"),
]
values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(DEAL.why(0)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
FIELDS = st.sampled_from(
    [
        "title",
        "name",
        "why",
        "arguments",
        "type",
        "id",
        "assignee",
        "due",
        "project",
        "by",
        "code",
        "reason",
        "parked",
        "text",
    ]
)
TYPES = st.sampled_from([*EVENTS, "work.task.invented", "my.own.thing", "crm.opportunity.invented"])
datas = st.dictionaries(FIELDS, values, max_size=6)


@st.composite
def events(draw: st.DrawFn) -> Event:
    version = draw(st.sampled_from([None, "1", "2", "²", "x"]))
    whole = {"title": "a", "text": "b", "name": "c", "type": "task.create"} if draw(st.booleans()) else {}
    data = {**whole, **draw(datas)}
    subject, case = draw(st.sampled_from(SUBJECTS)), draw(st.sampled_from(SUBJECTS))
    return event(draw(TYPES), subject, data, case=case, minutes=draw(st.integers(0, 5)), version=version)


@settings(max_examples=80)
@given(told=st.lists(events(), max_size=6))
def test_no_fold_fails(told: list[Event]) -> None:
    raw = [json.dumps(each.model_dump(exclude_none=True)).encode() for each in told]
    records = [Record("hub.events", 0, at, each.case.encode(), raw[at]) for at, each in enumerate(told)]
    read = [found for record in records if (found := read_event(record)) is not None]
    for projection in registry.projections().values():
        once = {key: change.after for key, change in fold(projection, read, {}).items() if change.after}
        assert fold(projection, read[-1:], once) == {}
        assert all(row_hash(row) for row in once.values())
