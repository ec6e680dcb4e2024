"""What is taken in by set is what would be taken in one by one: the same events in the same cases and order, the same links."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, event, select

from hub.intake.intake import Intake
from hub.kit.connector import Fact, Unmapped
from hub.ledger import commands, conflicts, links, outbox, parked
from hub.ledger.ledger import Ledger
from hub.runtime.clock import FixedClock
from schemas.envelope import Command, format_time
from tests.pushing import NOON, Staff, fact

OURS = {"pm": frozenset({"task", "project"})}
DEAL, PROJECTS = "opportunity/crm/O-1", ("project/pm/P-1", "project/pm/P-2")
TASKS = tuple(f"task/pm/T-{n}" for n in range(4))
COMMANDS = ("c-0", "c-1")


class News(NamedTuple):
    """Of an object: what it belongs to, and the command that it echoes; without a type they cannot be read."""

    type: str
    subject: str
    version: int
    belongs_to: str | None = None
    origin: str | None = None

    @property
    def told(self) -> Fact | Unmapped:
        if not self.type:
            return Unmapped(b"%d" % self.version, "HUB-E6110", {}, self.subject)
        more: dict[str, Any] = {"belongs_to": self.belongs_to, "origin": self.origin}
        return fact(
            f"work.{self.subject.partition('/')[0]}.{self.type}", self.subject, version=str(self.version), **more
        )


class Call(NamedTuple):
    """A command's call begins."""

    command: str


class End(NamedTuple):
    """It ends, and has made this."""

    command: str
    made: str


class Page(NamedTuple):
    """News that are taken in in one transaction."""

    instance: str
    told: Sequence[News]


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOON)


@pytest.fixture
def intake(ledger: Ledger, clock: FixedClock) -> Intake:
    return Intake(ledger, Staff(), clock, OURS)


def by_set(intake: Intake, page: Page) -> None:
    intake.page(page.instance, "s", [each.told for each in page.told], "1", lambda _: True).result(30)


def one_by_one(intake: Intake, page: Page) -> None:
    items = [intake.polled(page.instance, each.told) for each in page.told]
    intake._ledger.writer.run(lambda conn: [intake.take_in(conn, page.instance, [item]) for item in items])


def play(intake: Intake, steps: Sequence[Call | End | Page], take: Callable[[Intake, Page], None]) -> list[Any]:
    """Play a story in an empty ledger; what it has then."""
    writer = intake._ledger.writer
    tables = (outbox.outbox, links.links, parked.parked, commands.commands, conflicts.conflicts)
    writer.run(lambda conn: [conn.execute(delete(table)) for table in tables])
    for step in steps:
        match step:
            case Call(command):
                writer.run(lambda conn, id_=command: _called(conn, id_))  # type: ignore[misc]
            case End(command, made):
                writer.run(lambda conn, id_=command, ref=made: _ended(conn, id_, ref))  # type: ignore[misc]
            case Page():
                take(intake, step)
    with intake._ledger.reading() as conn:
        box, of = outbox.outbox.c, links.links.c
        told = conn.execute(
            select(box.event_id, box.instance, box.case_id, box.body, box.held_until).order_by(box.id)
        ).all()
        linked = conn.execute(select(of.object, of.case_id, of.command_id).order_by(of.object)).all()
        kept = [(row.ref, row.subject, row.code) for row in parked.open_entries(conn)]
        other = conn.execute(select(conflicts.conflicts)).all()
    return [told, linked, kept, len(other)]


def _called(conn: Connection, id_: str) -> None:
    at = format_time(NOON)
    command = Command(
        id=id_, type="task.create", instance="pm", case=DEAL, time=at, causationid="e-1", subject=DEAL,
        rule="r", digest="d", position=0,
    )  # fmt: skip
    commands.accept(conn, command, command.to_json(), at)
    row = commands.get(conn, id_)
    assert row is not None
    commands.take(conn, [(row, at)], "me", at)


def _ended(conn: Connection, id_: str, made: str) -> None:
    if commands.end(conn, id_, "me", "DONE", format_time(NOON)):
        links.link(conn, made, DEAL, id_)


refs = st.sampled_from([*TASKS, *PROJECTS])
news = st.builds(
    News,
    st.sampled_from(["created", "created", "completed", "completed", "changed", ""]),
    refs,
    st.integers(0, 4),
    st.sampled_from([None, *PROJECTS, *PROJECTS, DEAL]),
    st.sampled_from([None, None, None, None, *COMMANDS]),
)
steps = st.lists(
    st.one_of(
        st.builds(Page, st.sampled_from(["pm", "crm"]), st.lists(news, min_size=1, max_size=12)),
        st.builds(Page, st.sampled_from(["pm", "crm"]), st.lists(news, min_size=1, max_size=12)),
        st.builds(Call, st.sampled_from(COMMANDS)),
        st.builds(End, st.sampled_from(COMMANDS), refs),
    ),
    max_size=8,
)


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(story=steps, at_once=st.sampled_from([1, 2, 1000]))
def test_by_set_is_one_by_one(intake: Intake, story: list[Call | End | Page], at_once: int) -> None:
    with patch("hub.intake.batch_intake.MAX_ROWS_PER_STATEMENT", at_once):
        assert play(intake, story, by_set) == play(intake, story, one_by_one)


def test_the_first_word_of_another_program_counts_for_all_that_belongs_to_it(
    intake: Intake, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project is linked between the look and the write: its tasks go with it."""
    first = links.link_all

    def linked_meanwhile(conn: Connection, cases: dict[str, str]) -> Any:
        monkeypatch.setattr(links, "link_all", first)
        links.link(conn, PROJECTS[0], DEAL)
        return links.link_all(conn, cases)

    monkeypatch.setattr(links, "link_all", linked_meanwhile)
    by_set(intake, Page("crm", [News("created", task, 1, PROJECTS[0]) for task in TASKS]))
    with ledger.reading() as conn:
        assert links.cases_of(conn, TASKS) == dict.fromkeys(TASKS, DEAL)
        assert {row.case_id for row in conn.execute(select(outbox.outbox.c.case_id))} == {DEAL}


@contextmanager
def counted(ledger: Ledger) -> Iterator[list[str]]:
    """The statements that are executed."""
    said: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        said.append(statement)

    event.listen(ledger.engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(ledger.engine, "before_cursor_execute", note)


@pytest.mark.parametrize("instance", ["crm", "pm"])
def test_a_hundred_tasks_of_a_project_cost_no_more_statements_than_one(
    intake: Intake, ledger: Ledger, instance: str
) -> None:
    spent = []
    for count, project in zip((1, 100), PROJECTS, strict=True):
        many = [News("created", f"{project.replace('project', 'task')}-{n}", 1, project) for n in range(count)]
        with counted(ledger) as said:
            by_set(intake, Page(instance, many))
        spent.append(len(said))
    assert spent[1] == spent[0], said[:20]


def test_more_than_a_statement_may_have(intake: Intake, ledger: Ledger) -> None:
    by_set(intake, Page("crm", [News("created", f"task/pm/M-{n}", 1, PROJECTS[0]) for n in range(6000)]))
    with ledger.reading() as conn:
        assert outbox.count(conn) == 6000
