"""News of an object that we may just be creating wait for its effect, in order, and for nothing else."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Connection

from hub.intake import correlation
from hub.intake.deferred_intake import DeferredIntake, Redelivery
from hub.intake.intake import Intake
from hub.kit.connector import Fact
from hub.ledger import commands, links, outbox
from hub.ledger.ledger import Ledger
from hub.runtime.clock import FixedClock
from schemas.envelope import Command, format_time
from tests.background import background
from tests.pushing import NOON, Staff, Telling, delivery, events, fact

TASK, DEAL = "task/pm/T-1", "opportunity/crm/O-1"


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOON)


@pytest.fixture
def intake(ledger: Ledger, clock: FixedClock) -> Intake:
    return Intake(ledger, Staff(), clock, {"pm": frozenset({"task", "project"})})


def tell(intake: Intake, *told: Fact, instance: str = "pm") -> None:
    intake.push(instance, Telling(told), delivery(repr(told).encode())).result(10)


def task(type_: str = "completed", subject: str = TASK, version: str = "1", belongs_to: str | None = None) -> Fact:
    return fact(f"work.task.{type_}", subject, version=version, belongs_to=belongs_to)


def calling(ledger: Ledger, clock: FixedClock, id_: str = "c-1", instance: str = "pm") -> None:
    """A command's call is under way."""
    command = Command(
        id=id_, type="task.create", instance=instance, case=DEAL, time=format_time(NOON), causationid="e-1", subject=DEAL,
        rule="r", digest="d", position=0,
    )  # fmt: skip
    at = format_time(clock.now())
    ledger.writer.run(lambda conn: commands.accept(conn, command, command.to_json(), at))
    with ledger.reading() as conn:
        row = commands.get(conn, id_)
    assert row is not None
    assert ledger.writer.run(lambda conn: commands.take(conn, [(row, format_time(NOON))], "me", at))


def ended(ledger: Ledger, made: str | None = TASK, id_: str = "c-1", state: str = "DONE") -> None:
    """The call is over: what it made is linked in the same transaction."""

    def work(conn: Connection) -> None:
        commands.end(conn, id_, "me", state, format_time(NOON))
        if made:
            links.link(conn, made, DEAL, id_)

    ledger.writer.run(work)


def release(ledger: Ledger) -> int:
    with ledger.reading() as conn:
        due = correlation.releasable(conn)
    released = ledger.writer.run(correlation.release)
    assert due == (released > 0)
    return released


def held(ledger: Ledger) -> int:
    with ledger.reading() as conn:
        return outbox.counts(conn)["held"]


def test_a_task_of_peoples_own_opens_its_case_at_once(ledger: Ledger, intake: Intake) -> None:
    tell(intake, task("created"))
    assert [told.case for told in events(ledger)] == [TASK]


def test_news_of_what_we_may_be_creating_wait_for_its_effect(ledger: Ledger, intake: Intake, clock: FixedClock) -> None:
    calling(ledger, clock)
    tell(intake, task("created"))
    assert (held(ledger), release(ledger)) == (1, 0)
    ended(ledger)
    assert (release(ledger), held(ledger)) == (1, 0)
    (told,) = events(ledger)
    assert told.case == told.correlationid == DEAL


def test_held_news_keep_their_order_and_later_ones_stay_behind(
    ledger: Ledger, intake: Intake, clock: FixedClock
) -> None:
    calling(ledger, clock)
    tell(intake, task("created", version="1"))
    ended(ledger)
    tell(intake, task("started", version="2"))  # linked by now, and yet behind what is held
    tell(intake, task("completed", version="3"))
    assert (held(ledger), release(ledger)) == (3, 3)
    assert [(told.subjectversion, told.case) for told in events(ledger)] == [("1", DEAL), ("2", DEAL), ("3", DEAL)]


def test_what_was_held_comes_behind_the_record_of_its_effect(ledger: Ledger, intake: Intake, clock: FixedClock) -> None:
    calling(ledger, clock)
    tell(intake, task("completed"))
    tell(intake, fact("crm.opportunity.changed", DEAL), instance="crm")  # stands for the effect's own event
    ended(ledger)
    release(ledger)
    assert [told.subject for told in events(ledger)] == [DEAL, TASK]


def test_what_turns_out_not_to_be_ours_opens_its_own_case(ledger: Ledger, intake: Intake, clock: FixedClock) -> None:
    calling(ledger, clock)
    tell(intake, task("created"))
    ended(ledger, made="task/pm/T-2")
    assert release(ledger) == 1
    tell(intake, task("completed", version="2"))
    assert {told.case for told in events(ledger)} == {TASK}


def test_a_doubtful_call_is_waited_for_however_long_it_takes(ledger: Ledger, intake: Intake, clock: FixedClock) -> None:
    calling(ledger, clock)
    tell(intake, task("created"))
    ended(ledger, made=None, state="UNKNOWN")
    clock.advance(3600)
    assert release(ledger) == 0
    ledger.writer.run(lambda conn: links.link(conn, TASK, DEAL, "c-1"))
    assert release(ledger) == 1


def test_calls_that_began_later_are_not_waited_for(ledger: Ledger, intake: Intake, clock: FixedClock) -> None:
    calling(ledger, clock)
    tell(intake, task("created"))
    clock.advance(60)
    calling(ledger, clock, "c-2")
    ended(ledger, made=None)
    assert release(ledger) == 1


def test_calls_to_other_systems_are_not_waited_for(ledger: Ledger, intake: Intake, clock: FixedClock) -> None:
    calling(ledger, clock, instance="other")
    tell(intake, task("created"))
    assert held(ledger) == 0


def test_kinds_that_we_never_create_there_are_not_held(ledger: Ledger, intake: Intake, clock: FixedClock) -> None:
    calling(ledger, clock, instance="crm")
    tell(intake, fact(), instance="crm")
    tell(intake, task("created", "task/crm/T-9"), instance="crm")
    assert held(ledger) == 0


def test_a_task_in_a_project_of_ours_is_in_its_case_without_waiting(
    ledger: Ledger, intake: Intake, clock: FixedClock
) -> None:
    ledger.writer.run(lambda conn: links.link(conn, "project/pm/P-1", DEAL))
    calling(ledger, clock)
    tell(intake, task("created", belongs_to="project/pm/P-1"))
    assert [told.case for told in events(ledger)] == [DEAL]


def test_a_task_in_a_project_that_we_are_creating_waits_for_the_project(
    ledger: Ledger, intake: Intake, clock: FixedClock
) -> None:
    calling(ledger, clock)
    tell(intake, task("created", belongs_to="project/pm/P-1"))
    assert held(ledger) == 1
    ended(ledger, made="project/pm/P-1")
    assert release(ledger) == 1
    assert [told.case for told in events(ledger)] == [DEAL]


def test_an_echo_finds_the_case_of_its_command(ledger: Ledger, intake: Intake, clock: FixedClock) -> None:
    calling(ledger, clock)
    ended(ledger, made=None)
    told = task("created")
    tell(intake, Fact(told.type, told.subject, "1", told.time, told.data, origin="c-1"))
    assert [one.case for one in events(ledger)] == [DEAL]


def test_a_repeat_of_what_is_held_adds_nothing(ledger: Ledger, intake: Intake, clock: FixedClock) -> None:
    calling(ledger, clock)
    for _ in range(3):
        tell(intake, task("created"))
    assert held(ledger) == 1


def test_held_news_are_released_by_themselves_soon_after_the_effect(
    ledger: Ledger, intake: Intake, clock: FixedClock
) -> None:
    looks = DeferredIntake(ledger, Redelivery(ledger, intake, {}, clock), clock)
    released = threading.Event()
    with background(looks):
        calling(ledger, clock)
        tell(intake, task("created"))
        ledger.writer.on_commit(lambda: released.set() if held(ledger) == 0 else None)
        ended(ledger)
        assert released.wait(5)
