"""The chain of a case, told from the ledger: what led to what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from hub.ledger import commands, links, outbox
from hub.ledger.ledger import Ledger
from hub.replay import story
from hub.replay.history import History
from schemas.envelope import promise
from tests.events import AT, command, event, result, won

DEAL = won()
PROJECT = command(DEAL, "project.create", 0, name="交付")
TASKS = [command(DEAL, "task.create", n, title=f"T{n}", project=promise(PROJECT.id)) for n in (1, 2)]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A won deal with its project and two tasks; the first was finished."""
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    done = event("work.task.completed", "task/pm/T-1", case=DEAL.case, version="2")
    made = [result(PROJECT, "P-77"), *(result(task, f"T-{n}") for n, task in enumerate(TASKS, 1)), done]

    def work(conn: Connection) -> None:
        outbox.record(conn, [DEAL, *made], "crm")
        for asked in (PROJECT, *TASKS):
            commands.accept(conn, asked, asked.to_json(), AT)
        links.link(conn, "project/pm/P-77", DEAL.case, PROJECT.id)

    opened.writer.run(work)
    yield opened
    opened.close()


def refs(ledger: Ledger, name: str) -> list[str]:
    with ledger.reading() as conn:
        return [found.ref for found in story.resolve(History(conn), name)]


def test_a_case_is_one_tree_and_what_nothing_caused_begins_another(ledger: Ledger) -> None:
    with ledger.reading() as conn:
        told = story.of_case(History(conn), DEAL.case)
    assert [root.id for root in told.roots] == [DEAL.id, told.about("task/pm/T-1")[-1].id]
    asked = told.roots[0].causes
    assert [node.id for node in asked] == [PROJECT.id, *(task.id for task in TASKS)]
    assert [below.event and below.event.subject for node in asked for below in node.causes] == [
        "project/pm/P-77",
        "task/pm/T-1",
        "task/pm/T-2",
    ]


def test_around_a_task_stands_its_path_and_not_its_neighbours(ledger: Ledger) -> None:
    with ledger.reading() as conn:
        told = story.of_case(History(conn), DEAL.case)
    targets = told.about("task/pm/T-1")
    assert told.around(targets) == {DEAL.id, TASKS[0].id, *(node.id for node in targets)}
    assert told.around(told.about(DEAL.id)) >= {PROJECT.id, *(task.id for task in TASKS)}


def test_a_request_and_a_command_are_one_thing(ledger: Ledger) -> None:
    with ledger.reading() as conn:
        told = story.of_case(History(conn), DEAL.case)
        found = story.resolve(History(conn), f"request/pm/{TASKS[0].id}")
    assert [each.ref for each in found] == [TASKS[0].id]
    assert [node.id for node in told.about(f"command/pm/{TASKS[0].id}")] == [TASKS[0].id]


def test_references_are_found_as_people_write_them(ledger: Ledger) -> None:
    assert refs(ledger, "project/pm/P-77") == ["project/pm/P-77"]
    assert refs(ledger, "P-77") == ["project/pm/P-77"]
    assert refs(ledger, DEAL.id) == [DEAL.id]
    assert refs(ledger, DEAL.id[:8]) == [DEAL.id]
    assert refs(ledger, "O-1") == [DEAL.subject]
    assert refs(ledger, "O-2") == []
    assert refs(ledger, "%") == []


def test_a_bare_id_of_two_systems_is_doubtful(ledger: Ledger) -> None:
    other = event("work.task.created", "task/erp/T-1", version="1")
    ledger.writer.run(lambda conn: outbox.record(conn, [other], "erp"))
    assert refs(ledger, "T-1") == ["task/erp/T-1", "task/pm/T-1"]
