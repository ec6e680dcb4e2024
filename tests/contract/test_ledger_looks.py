"""What commands read of ledger and boards, and what they write there, is the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, insert

from hub.health.looking import BoardPlace, board_places
from hub.ledger import commands, links, outbox, parked, parked_events
from hub.ledger.ledger import Ledger, read_snapshot
from hub.ledger.links import KnownObject, known_object, known_objects
from hub.ledger.parked_events import OperatorRequest
from hub.log.memory_log import MemoryLog
from hub.projector.folding import FoldPosition
from hub.projector.store import BoardStore, owners, write_places
from hub.replay import story
from hub.replay.audit.audit import audit
from hub.replay.history import History
from schemas.envelope import Event
from tests.events import AT, command, result, won


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger(url)
    yield opened
    opened.close()


def fill(conn: Connection) -> None:
    """A won deal, a task that it asked for, and an entry that is parked."""
    asked = command(won())
    outbox.record(conn, [won()], "crm")
    commands.accept(conn, asked, asked.to_json(), AT)
    links.link(conn, "task/pm/T_1", won().case, asked.id)
    row = {"ref": "event/e1", "kind": "event", "case_id": won().case, "code": "HUB-E6001", "seen": {}, "body": b"{"}
    parked.park(conn, {**row, "parked_at": AT})


@contextlib.contextmanager
def held_up(ledger: Ledger) -> Iterator[None]:
    """The writer is busy meanwhile: what is submitted shares the next commit."""
    began, go = threading.Event(), threading.Event()

    def wait(_: Connection) -> None:
        began.set()
        go.wait(10)

    busy = ledger.writer.submit(wait)
    assert began.wait(10)
    try:
        yield
    finally:
        go.set()
    busy.result(10)


def test_a_look_makes_nothing_and_sees_one_moment(url: str) -> None:
    with read_snapshot(url, "outbox") as conn:
        assert conn is None
    ledger = Ledger(url)
    with read_snapshot(url, "outbox") as conn:
        assert conn is not None
        assert outbox.counts(conn)["accepted"] == 0
        ledger.writer.run(fill)
        assert outbox.counts(conn)["accepted"] == 0
    with read_snapshot(url, "outbox") as conn:
        assert conn is not None
        assert outbox.counts(conn)["accepted"] == 1
    ledger.close()


def test_a_case_is_found_and_told(ledger: Ledger) -> None:
    ledger.writer.run(fill)
    ledger.writer.run(lambda conn: outbox.record(conn, [result(command(won()), "T_1")], "pm"))
    with ledger.reading() as conn:
        assert [found.ref for found in story.resolve(History(conn), "T_1")] == ["task/pm/T_1"]
        assert story.resolve(History(conn), "TX1") == story.resolve(History(conn), "%") == []
        assert [found.ref for found in story.resolve(History(conn), won().id[:10])] == [won().id]
        (root,) = story.of_case(History(conn), won().case).roots
    assert [node.command and node.command.type for node in root.causes] == ["task.create"]


def test_a_look_at_many_objects_sees_of_each_what_a_look_at_it_alone_sees(ledger: Ledger) -> None:
    held, waits = "task/pm/T_2", "opportunity/crm/O_9"
    delivery = {"ref": waits, "kind": "delivery", "subject": waits, "code": "HUB-E4223", "seen": {}, "body": b"{"}

    def write(conn: Connection) -> None:
        fill(conn)
        outbox.hold(conn, won().model_copy(update={"id": "e2", "subject": held}), "crm", AT)
        parked.park(conn, {**delivery, "parked_at": AT})

    ledger.writer.run(write)
    refs = ["task/pm/T_1", held, waits, "order/erp/7"]
    with ledger.reading() as conn:
        seen, alone = known_objects(conn, refs), {ref: known_object(conn, ref) for ref in refs}
    nothing = KnownObject(None, False, False)
    assert {ref: seen.get(ref, nothing) for ref in refs} == alone
    assert alone == {
        "task/pm/T_1": KnownObject(won().case, False, False),
        held: KnownObject(None, False, True),
        waits: KnownObject(None, True, False),
        "order/erp/7": nothing,
    }


def test_many_links_are_made_once_and_the_first_word_counts(ledger: Ledger) -> None:
    with_first = ledger.writer.run(lambda conn: links.link_all(conn, {"a/x/1": "c/x/1", "a/x/2": "c/x/2"}))
    again = ledger.writer.run(lambda conn: links.link_all(conn, {"a/x/2": "c/x/9", "a/x/3": "c/x/3"}))
    assert with_first == {"a/x/1": "c/x/1", "a/x/2": "c/x/2"}
    assert again == {"a/x/2": "c/x/2", "a/x/3": "c/x/3"}


def test_what_fails_among_many_takes_nothing_with_it(ledger: Ledger) -> None:
    calls = list[list[int]]()

    def work(conn: Connection, items: Sequence[int]) -> list[int]:
        calls.append(list(items))
        for item in items:
            links.link(conn, f"a/x/{item}", "c/x/1")
            if item == 2:
                raise ZeroDivisionError
        return [item * 10 for item in items]

    with held_up(ledger):
        answers = [ledger.writer.gather(work, item) for item in (1, 2, 3)]
    assert [answer.exception(10).__class__ for answer in answers] == [type(None), ZeroDivisionError, type(None)]
    assert [answers[0].result(), answers[2].result()] == [10, 30]
    assert calls == [[1, 2, 3], [1], [2], [3]]
    with ledger.reading() as conn:
        assert set(links.cases_of(conn, ["a/x/1", "a/x/2", "a/x/3"])) == {"a/x/1", "a/x/3"}


def test_asking_about_a_parked_event_is_an_event_of_its_case(ledger: Ledger) -> None:
    ledger.writer.run(fill)

    def ask(conn: Connection) -> str:
        entry = parked.find(conn, "event/e1")
        assert entry is not None
        return parked_events.retry(conn, entry, OperatorRequest(datetime.now(UTC), by="li.lei"))

    asked = ledger.writer.run(ask)
    with ledger.reading() as conn:
        row = outbox.find(conn, asked)
    assert row is not None
    event = Event.from_json(row.body)
    assert (event.type, event.case, event.data["parked"]) == ("hub.parked.retried", won().case, "e1")


def test_the_audit_reads_either(ledger: Ledger) -> None:
    ledger.writer.run(fill)
    with ledger.reading() as conn:
        report = audit(MemoryLog(), conn, ledger.outbox_id, datetime.now(UTC), lambda: {})
    assert report.counts["accepted"] == report.counts["commands"] == report.counts["parked"] == 1
    assert [finding.what for finding in report.findings] == [
        "not in the log after too long",
        "listed as parked, but held nowhere",  # and so it is: an entry that no record of a log stands behind
    ]


def test_places_of_boards_are_read_from_their_own_store(url: str) -> None:
    assert board_places(url) == {}
    store = BoardStore(url)
    store.prepare()
    with store.writing() as conn:
        owner = {"holder": "", "beat": 0, "fresh_at": AT, "delay_ms": 0, "unreadable": 0}
        conn.execute(insert(owners).values(projection="tasks", version=1, epoch=1, **owner))
        write_places(conn, "tasks", {0: FoldPosition(next_offset=5), 3: FoldPosition(next_offset=7)})
    store.close()
    assert board_places(url) == {"tasks": BoardPlace({0: 5, 3: 7}, AT)}


def test_one_that_fails_among_different_ones_takes_nothing_with_it(ledger: Ledger) -> None:
    begun = list[int]()

    def work(item: int, conn: Connection) -> int:
        begun.append(item)
        links.link(conn, f"a/x/{item}", "c/x/1")
        if item == 2:
            raise ZeroDivisionError
        return item * 10

    with held_up(ledger):
        answers = [ledger.writer.submit(functools.partial(work, item)) for item in (1, 2, 3)]
    assert [answer.exception(10).__class__ for answer in answers] == [type(None), ZeroDivisionError, type(None)]
    assert [answers[0].result(), answers[2].result()] == [10, 30]
    assert begun == [1, 2, 1, 2, 3]
    with ledger.reading() as conn:
        assert set(links.cases_of(conn, ["a/x/1", "a/x/2", "a/x/3"])) == {"a/x/1", "a/x/3"}


def test_one_that_fails_alone_leaves_nothing(ledger: Ledger) -> None:
    def work(conn: Connection) -> None:
        links.link(conn, "a/x/1", "c/x/1")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ledger.writer.run(work)
    with ledger.reading() as conn:
        assert links.cases_of(conn, ["a/x/1"]) == {}
