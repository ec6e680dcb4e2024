"""Reading the log for people: the last events across partitions, and how much was read to find them."""

from __future__ import annotations

from hub.cli.events import as_value, line
from hub.cli.log_reading import following, locate, matching, search_event, search_latest
from hub.log.event_log import Outgoing
from hub.log.memory_log import MemoryLog
from schemas.envelope import Event
from tests.events import event, record, won

ANY = matching(None, None)


def log_of(*events: Event) -> MemoryLog:
    log = MemoryLog()
    log.writer().append([Outgoing("hub.events", each.case.encode(), each.to_json()) for each in events])
    return log


def test_any_events_need_no_more_than_the_ends_of_the_partitions() -> None:
    log = log_of(*(won(f"O-{number}") for number in range(200)))
    search = search_latest(log, ANY, 1, everything=False)
    assert (len(search.found), search.total) == (1, 200)
    assert search.read <= log.partitions


def test_what_is_looked_for_is_found_in_all_of_the_log() -> None:
    log = log_of(won("O-1"), *(won(f"N-{number}") for number in range(50)), event("erp.stock.ran_low", "item/stock/7"))
    search = search_latest(log, matching("erp.*", None), 5, everything=True)
    assert [at.event and at.event.subject for at in search.found] == ["item/stock/7"]
    assert (search.read, search.total) == (52, 52)
    of_case = search_latest(log, matching(None, "opportunity/crm/O-1"), 5, everything=True)
    assert [at.event and at.event.case for at in of_case.found] == ["opportunity/crm/O-1"]
    assert search_latest(log, ANY, 0, everything=False).found == []


def test_an_event_that_was_relayed_twice_lies_in_two_places() -> None:
    log = log_of(won(), won("O-2"), won())
    assert [at.record.offset for at in search_event(log, won().id).found] == [0, 1]


def test_following_goes_on_where_the_search_ended() -> None:
    log = log_of(won("O-1"))
    search = search_latest(log, ANY, 10, everything=False)
    log.writer().append([Outgoing("hub.events", b"opportunity/crm/O-2", won("O-2").to_json())])
    assert next(following(log, ANY, search.next_offsets)).event == won("O-2")


def test_a_record_that_is_no_event_is_shown_as_what_it_is() -> None:
    at = locate(record(b"{poison", 7, b"x"))
    assert as_value(at) == {"partition": 0, "offset": 7, "unreadable": "{poison"}
    assert "unreadable" in line(at)
    assert matching("crm.*", None)(at) is False
