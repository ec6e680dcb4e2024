"""What happened is told alike, whether the ledger still has it or only the log: by the trail, in either kind of store."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import pytest
from sqlalchemy import Connection, delete, func, inspect, select

from hub.cli.log_reading import search_latest_of
from hub.ledger import commands, outbox
from hub.ledger.ledger import Ledger
from hub.log.event_log import OffsetReader, Outgoing
from hub.log.memory_log import MemoryLog
from hub.log.sequences import without_sequence
from hub.projector import registry
from hub.projector.rebuild import rebuild
from hub.projector.runner import Runner
from hub.projector.store import BoardStore, owners
from hub.projector.trail import Trail, of_id, places, words
from hub.projector.trail_index import INDEX
from hub.replay import story
from hub.replay.history import Gaps, History, StoredEvent
from hub.runtime.clock import SystemClock
from schemas.envelope import Command, Event
from schemas.topics import EVENTS
from tests.away_places import Away
from tests.board_events import Deal
from tests.contract.test_recall import relayed
from tests.events import AT, command, event, result, won

T = TypeVar("T")


@dataclass
class Hub:
    """A ledger, the log that it is relayed to, and the trail of that."""

    ledger: Ledger
    store: BoardStore
    log: MemoryLog = field(default_factory=MemoryLog)

    def took(self, events: Sequence[Event], asked: Sequence[Command] = ()) -> None:
        """Take in, relay and index."""

        def work(conn: Connection) -> None:
            outbox.record(conn, events, "crm")
            for each in asked:
                commands.accept(conn, each, each.to_json(), AT)

        self.ledger.writer.run(work)
        relayed(self.ledger, self.log)
        self.index()

    def index(self) -> None:
        Runner(self.log, self.store, INDEX, SystemClock()).catch_up(7)

    def trim(self, share: float = 1.0) -> None:
        """The ledger lets go of its oldest rows."""

        def work(conn: Connection) -> None:
            table = outbox.outbox
            last = conn.execute(select(func.max(table.c.id))).scalar_one() * share
            conn.execute(delete(table).where(table.c.id <= last))

        self.ledger.writer.run(work)

    def ask(self, question: Callable[[History], T], log: OffsetReader | None = None) -> tuple[T, Gaps]:
        """An answer, and what it lacks."""
        with self.ledger.reading() as conn, self.store.reading() as boards:
            history = History(conn, Trail.of(boards), log or self.log.places(EVENTS.name))
            return question(history), history.gaps

    def told(self, ref: str) -> object:
        """The story of a thing, whole: an answer that lacks nothing."""
        answer, gaps = self.ask(lambda history: as_value(history, ref))
        assert not gaps
        return answer


def as_value(history: History, ref: str) -> object:
    found = story.resolve(history, ref)
    if len(found) != 1:
        return found
    told = story.of_case(history, found[0].case)
    kept = told.around(told.about(found[0].ref))
    return found, [story.as_value(root, kept) for root in told.roots]


@pytest.fixture
def hub(ledger: Ledger, url: str) -> Iterator[Hub]:
    store = BoardStore(url)  # beside the ledger, in one database
    store.prepare(registry.all_projections().values())
    yield Hub(ledger, store)
    store.close()


DEAL = won()
PROJECT, TASK = (command(DEAL, type_, n) for n, type_ in enumerate(("project.create", "task.create")))
MADE = [result(PROJECT, "P-77"), result(TASK, "T-1")]
FINISHED = event("work.task.completed", "task/pm/T-1", case=DEAL.case, version="2")


def test_an_event_is_explained_after_its_row_has_gone(hub: Hub) -> None:
    hub.took([DEAL, *MADE, FINISHED], [PROJECT, TASK])
    refs: tuple[str, ...] = (
        DEAL.id,
        DEAL.id[:8],
        MADE[0].id,
        "P-77",
        "t-1",
        "task/pm/T-1",
        PROJECT.id,
        f"request/pm/{TASK.id}",
    )
    before = {ref: hub.told(ref) for ref in refs}
    assert DEAL.id in str(before["t-1"])
    hub.trim()
    assert hub.ask(lambda history: history.ledger is not None and outbox.counts(history.ledger)["accepted"])[0] == 0
    assert {ref: hub.told(ref) for ref in refs} == before


def history_of(seed: int, deals: int = 40) -> list[Event]:
    """Deals with their work, told in a random order of deals."""
    chance = random.Random(seed)  # a test's own
    stories = [
        [
            *deal.story(),
            *(deal.step(chance.randrange(3), chance.choice(("accepted", "completed")), 5 + at) for at in (0, 1)),
        ]
        for deal in (Deal(number, minutes=number * 7) for number in range(deals))
    ]
    told: list[Event] = []
    while any(stories):
        told.append(chance.choice([each for each in stories if each]).pop(0))
    return told


class Brute:
    """The whole log, gone through for every question."""

    def __init__(self, log: MemoryLog) -> None:
        there = (log.records[EVENTS.name, partition] for partition in range(log.partitions))
        self.events = [Event.from_json(without_sequence(each.value or b"")) for records in there for each in records]

    def answer(self, ref: str) -> tuple[object, ...]:
        """The event, those whose id starts so, those of the case, those about the object, and the objects of a bare id."""
        ids = [each.id for each in self.events]
        return (
            next((each for each in self.events if each.id == ref), None),
            sorted(id_ for id_ in ids if id_.startswith(ref)) if len(ref) >= 6 else [],
            [each for each in self.events if each.case == ref],
            [each for each in self.events if each.subject == ref],
            sorted(
                {each.subject for each in self.events if each.subject.endswith(f"/{ref}") and each.kind != "request"}
            ),
        )


def answer(history: History, ref: str) -> tuple[object, ...]:
    """As `Brute`, from ledger and trail."""
    kept = history.event(ref)
    return (
        kept.event if kept is not None else None,
        [each.event.id for each in history.starting(ref)] if len(ref) >= 6 else [],
        [each.event for each in history.of_case(ref)],
        [each.event for each in history.of_subject(ref)],
        [each.ref for each in history.named(ref)],
    )


def some_refs(events: Sequence[Event], count: int) -> Iterator[str]:
    """Names of all kinds, some of which mean nothing."""
    chance = random.Random(count)  # a test's own
    for _ in range(count):
        one = chance.choice(events)
        match chance.randrange(6):
            case 0:
                yield one.id
            case 1:
                yield one.id[: chance.randrange(6, 30)]
            case 2 if one.kind != "request":
                yield one.subject
            case 3:
                yield one.case
            case 4:
                yield one.subject.rpartition("/")[2]
            case _:
                yield chance.choice((one.id[:8] + "0" + one.id[9:], one.subject + "0", "x" + one.id[:9], one.id[1:20]))


@pytest.mark.parametrize("trimmed", [0.0, 0.5, 1.0], ids=["whole", "half", "emptied"])
def test_random_questions_are_answered_as_by_the_whole_log(hub: Hub, trimmed: float) -> None:
    events = history_of(3)
    hub.took(events)
    hub.trim(trimmed)
    count = 334 if hub.store.engine.dialect.name == "sqlite" else 100
    refs, brute = list(some_refs(events, count)), Brute(hub.log)
    told, gaps = hub.ask(lambda history: {ref: answer(history, ref) for ref in refs})
    assert not gaps
    assert told == {ref: brute.answer(ref) for ref in refs}


def test_what_the_trail_has_not_taken_in_is_found_all_the_same(hub: Hub) -> None:
    hub.took([DEAL])
    late = won("O-2")
    hub.ledger.writer.run(
        lambda conn: outbox.record(conn, [late, event("work.task.created", "task/pm/T-9", case=late.case)], "crm")
    )
    for relay in (False, True):
        if relay:
            relayed(hub.ledger, hub.log)
        assert [found.ref for found in found_by(hub, "O-2")] == [late.subject]
        assert [found.ref for found in found_by(hub, "t-9")] == ["task/pm/T-9"]
        assert [found.ref for found in found_by(hub, late.id[:9])] == [late.id]


def found_by(hub: Hub, ref: str) -> list[story.ResolvedReference]:
    found, gaps = hub.ask(lambda history: story.resolve(history, ref))
    assert not gaps
    return found


def test_a_trail_that_is_far_behind_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.replay.history.MAX_RECENT_ROWS", 3)
    hub.took([DEAL])
    hub.ledger.writer.run(lambda conn: outbox.record(conn, [won(f"O-{number}") for number in range(2, 9)], "crm"))
    relayed(hub.ledger, hub.log)
    assert hub.ask(lambda history: story.resolve(history, "O-2"))[1].as_value() == {"behind": True}
    found, gaps = hub.ask(lambda history: story.resolve(history, "opportunity/crm/O-2"))
    assert [each.ref for each in found] == ["opportunity/crm/O-2"]
    assert not gaps
    hub.index()
    assert [found.ref for found in found_by(hub, "O-2")] == ["opportunity/crm/O-2"]


def test_without_the_broker_the_ledger_answers_and_what_only_the_log_has_is_told(hub: Hub) -> None:
    hub.took([DEAL, *MADE, FINISHED], [PROJECT, TASK])
    whole = hub.told("P-77")
    assert hub.ask(lambda history: as_value(history, "P-77"), Away())[0] == whole
    hub.trim()
    told, gaps = hub.ask(lambda history: story.of_case(history, DEAL.case), Away())
    assert [node.id for node in told.roots] == [PROJECT.id, TASK.id]
    assert (len(gaps.unread), gaps.log_error and gaps.log_error.code) == (4, "HUB-E2104")
    one, gaps = hub.ask(lambda history: history.event(DEAL.id), Away())
    assert one is None
    assert gaps.error() is not None


def test_without_a_ledger_trail_and_log_answer(hub: Hub) -> None:
    hub.took([DEAL, *MADE, FINISHED], [PROJECT, TASK])
    with hub.store.reading() as boards:
        history = History(None, Trail.of(boards), hub.log.places(EVENTS.name))
        assert [found.ref for found in story.resolve(history, "P-77")] == ["project/pm/P-77"]
        assert [node.id for node in story.of_case(history, DEAL.case).nodes()] == [
            each.id for each in (DEAL, *MADE, FINISHED)
        ]
    assert history.gaps.as_value() == {"ledger": True}


def test_a_record_that_is_gone_or_is_no_event_is_told(hub: Hub) -> None:
    hub.took([DEAL, *MADE, FINISHED])
    hub.trim()
    (there,) = [each for each in hub.log.records.values() if len(each) == 4]
    there[1] = there[1]._replace(value=b"{")
    there[2] = there[2]._replace(value=None)
    del there[3]
    told, gaps = hub.ask(lambda history: [each.event for each in history.of_case(DEAL.case)])
    assert told == [DEAL]
    assert gaps.as_value() == {
        "unread": [{"partition": there[0].partition, "offset": n} for n in (1, 2, 3)],
        "code": None,
    }


def test_another_event_with_the_same_number_is_not_taken_for_the_one_that_is_meant(hub: Hub) -> None:
    other = won("O-2", id=f"{DEAL.id[:14]}5{DEAL.id[15:-4]}ffff")
    assert of_id(other.id) == of_id(DEAL.id)
    hub.took([DEAL, other])
    hub.trim()
    for each in (DEAL, other):
        assert found_by(hub, each.id) == [story.ResolvedReference(each.id, each.case)]
    assert {found.ref for found in found_by(hub, DEAL.id[:12])} == {DEAL.id, other.id}


def test_an_event_that_was_relayed_twice_is_told_once_and_lies_in_both_places(hub: Hub) -> None:
    hub.took([DEAL, *MADE])
    records = [record for there in hub.log.records.values() for record in there]
    hub.log.writer().append([Outgoing(EVENTS.name, each.key or b"", each.value) for each in records])
    hub.index()
    hub.trim()
    told, _ = hub.ask(lambda history: [each.event.id for each in history.of_case(DEAL.case)])
    assert told == [each.id for each in (DEAL, *MADE)]
    with hub.store.reading() as boards:
        trail = Trail.of(boards)
        assert trail is not None
        assert [place.offset for place in trail.of_id(DEAL.id)] == [0, 3]
        assert [place.offset for place in trail.following(DEAL.id, DEAL.case)] == []
        assert [place.offset for place in trail.following(PROJECT.id, DEAL.case)] == [1, 4]


def events_of(case: str, history: History) -> list[Event]:
    return [kept.event for kept in history.of_case(case)]


def test_a_foreign_name_may_be_as_long_and_as_odd_as_it_likes(hub: Hub) -> None:
    names = ["a" * 395, "汉" * 390, "a\x00b", "%_", "É", "一/二/三"]
    odd = [event("work.task.created", f"x/{name}"[:400], version="9", source="/connectors/pm") for name in names]
    hub.log.writer().append([Outgoing(EVENTS.name, each.case.encode(), each.to_json()) for each in odd])
    hub.index()
    for each in odd:
        if "\x00" not in each.subject:  # nobody can ask for that
            assert hub.ask(partial(events_of, each.subject))[0] == [each]
    assert [found.ref for found in found_by(hub, "é")] == ["x/É"]
    assert found_by(hub, "%") == []


@pytest.mark.parametrize("type_", ["work.task.*", "crm.opportunity.won", "nothing.at.all"])
@pytest.mark.parametrize("case", [None, "opportunity/crm/O-3"])
def test_the_last_events_of_a_type_and_a_case_are_those_of_the_whole_log(
    hub: Hub, type_: str, case: str | None
) -> None:
    hub.took(history_of(5, deals=8))
    with hub.store.reading() as boards:
        found = search_latest_of(hub.log, Trail.of(boards), type_, case, 9)
    brute = search_latest_of(hub.log, None, type_, case, 9)
    assert [at.event for at in found.found] == [at.event for at in brute.found]
    assert (found.read, found.indexed, found.coverage) == (0, found.total, brute.coverage)


def test_a_trail_of_another_version_is_not_read(hub: Hub) -> None:
    hub.took([DEAL])
    with hub.store.writing() as conn:
        conn.execute(owners.update().where(owners.c.projection == INDEX.name).values(version=INDEX.version + 1))
    with hub.store.reading() as boards:
        assert Trail.of(boards) is None


def test_what_was_changed_by_hand_is_found_and_mended(hub: Hub) -> None:
    hub.took(history_of(6, deals=5))
    assert rebuild(hub.log, hub.store, INDEX, verify=True).equal
    with hub.store.writing() as conn:
        conn.execute(
            places.delete().where(
                places.c.id == places.select().with_only_columns(func.min(places.c.id)).scalar_subquery()
            )
        )
        conn.execute(words.update().values(ref="forged/by/hand"))
    found = rebuild(hub.log, hub.store, INDEX, verify=True)
    assert not found.equal
    assert {each.partition(" ")[0] for each in found.differing} == {"board_trail", "board_trail_words"}
    rebuild(hub.log, hub.store, INDEX)
    assert rebuild(hub.log, hub.store, INDEX, verify=True).equal
    indexes = {each["name"] for each in inspect(hub.store.engine).get_indexes("board_trail")}
    assert indexes == {"board_trail_id", "board_trail_case"}


def test_what_is_told_of_a_request_is_found_by_its_command_or_its_case(hub: Hub) -> None:
    asked = event("work.task.requested", f"request/pm/{TASK.id}", case=DEAL.case, data={"title": "T"})
    foreign = event("work.task.requested", "request/pm/unknown", case=DEAL.case, data={"title": "U"})
    hub.took([DEAL, asked, foreign], [TASK])
    hub.trim()
    for request, case in ((asked, None), (foreign, DEAL.case)):
        told, _ = hub.ask(partial(about, request.subject, case))
        assert [kept.event for kept in told] == [request]


def about(ref: str, case: str | None, history: History) -> list[StoredEvent]:
    return history.of_subject(ref, case)
