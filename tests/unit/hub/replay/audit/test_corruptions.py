"""Each harm that is done to a hub at rest, by hand, is found by the audit, and named with its place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import orjson
import pytest
from sqlalchemy import select

from hub.ledger import commands, outbox, parked
from hub.log.event_log import Record
from hub.projector import registry
from schemas.topics import EVENTS, STATE
from tests.simulation.checks import audited
from tests.simulation.running import busy_world
from tests.simulation.world import World

FOLDS = (
    "hub.engine",
    "hub.processor",
    "hub.kit.projection",
    "projections",
    "connectors",
)


@pytest.fixture
def world() -> World:
    played = busy_world()
    assert audited(played).findings == []
    return played


def _records(world: World, topic: str) -> list[Record]:
    return next(found for (name, _), found in sorted(world.log.records.items()) if name == topic and len(found) > 2)


def _change(there: list[Record], at: int, **told: object) -> None:
    value = {**orjson.loads(there[at].value or b""), **told}
    there[at] = there[at]._replace(value=orjson.dumps(value))


def _append(there: list[Record], record: Record) -> None:
    there.append(record._replace(offset=len(there)))


def drop_a_board_row(world: World) -> None:
    _delete_first(world, "entities")


def drop_a_card(world: World) -> None:
    _delete_first(world, "tasks")


def _delete_first(world: World, board: str) -> None:
    table = registry.projections()[board].table
    with world.boards.engine.begin() as conn:
        key = conn.execute(table.select().order_by(table.c.key)).first()
        assert key is not None
        conn.execute(table.delete().where(table.c.key == key.key))


def change_a_board_row(world: World) -> None:
    table = registry.projections()["entities"].table
    with world.boards.engine.begin() as conn:
        conn.execute(table.update().where(table.c.kind == "opportunity").values(stage="lost?"))


def invent_a_deal(world: World) -> None:
    table = registry.projections()["deals"].table
    with world.boards.engine.begin() as conn:
        one = conn.execute(select(table.c.key).limit(1)).scalar_one()
        conn.execute(table.update().where(table.c.key == one).values(key="opportunity/crm/never"))


def change_a_view(world: World) -> None:
    there = _records(world, "hub.view.opportunity")
    _change(there, len(there) - 1, stage="lost?")


def drop_a_view(world: World) -> None:
    for (topic, _), found in world.log.records.items():
        if topic == "hub.view.opportunity":
            found.clear()


def change_a_state(world: World) -> None:
    there = [r for r in _records(world, STATE.name) if b'"case"' in (r.value or b"")]
    told = orjson.loads(there[-1].value or b"")
    ref = next(iter(told["case"]["entities"]))
    told["case"]["entities"][ref]["data"]["name"] = "forged"
    _append(_records(world, STATE.name), there[-1]._replace(value=orjson.dumps(told)))


def remove_a_command(world: World) -> None:
    with world.ledgers.engine.begin() as conn:
        conn.execute(commands.commands.delete().where(commands.commands.c.id == world.pm.order[0]))


def forget_a_result(world: World) -> None:
    with world.ledgers.engine.begin() as conn:
        conn.execute(outbox.outbox.delete().where(outbox.outbox.c.type == "work.task.created"))


def double_an_event(world: World) -> None:
    there, at = _relayed(world)
    told = orjson.loads(there[at].value or b"")
    last = max(int(orjson.loads(r.value)["sequence"]) for r in there if r.value and b'"sequence"' in r.value)
    _append(there, there[at]._replace(value=orjson.dumps({**told, "sequence": str(last + 1)})))


def lose_an_event(world: World) -> None:
    there, at = _relayed(world)
    lost = orjson.loads(there[at].value or b"")["id"]
    there[:] = [record for record in there if lost.encode() not in (record.value or b"")[:200]]
    there[:] = [record._replace(offset=place) for place, record in enumerate(there)]


def _relayed(world: World) -> tuple[list[Record], int]:
    """A partition, and an event in it behind which there are more."""
    there = next(
        found for (name, _), found in sorted(world.log.records.items()) if name == EVENTS.name and len(found) > 8
    )
    return there, next(at for at, record in enumerate(there) if b'"sequence":"2"' in (record.value or b""))


def list_what_is_not_parked(world: World) -> None:
    row = {"ref": "event/never", "kind": "event", "code": "HUB-E6005", "seen": {}, "body": b"{}", "parked_at": "2026"}
    with world.ledgers.engine.begin() as conn:
        parked.park(conn, row)


@pytest.mark.parametrize(
    ("harm", "what", "place"),
    [
        (drop_a_board_row, "rows of a board that are not the fold of the log", "boards: entities"),
        (change_a_board_row, "rows of a board that are not the fold of the log", "boards: entities"),
        (drop_a_card, "rows that a board lacks", "boards: tasks"),
        (invent_a_deal, "rows of a board that the log does not tell of", "boards: deals"),
        (change_a_view, "views that are not the fold of the log", "hub.view.opportunity"),
        (drop_a_view, "objects that the shared view lacks", "hub.view.opportunity"),
        (change_a_state, "objects of cases that are not the fold of the log", "hub.state/"),
        (remove_a_command, "commands that were read and are not in the ledger", "ledger: commands"),
        (forget_a_result, "effects that no event tells of", "ledger: outbox"),
        (double_an_event, "events that came twice, under two sequences", "hub.events/"),
        (lose_an_event, "gaps in the sequence of partition", "hub.events/"),
        (lose_an_event, "published, but not in the log", "hub.events"),
        (list_what_is_not_parked, "listed as parked, but held nowhere", "ledger: parked"),
    ],
)
def test_harm_is_found_with_its_place(world: World, harm: Callable[[World], None], what: str, place: str) -> None:
    harm(world)
    found = [finding for finding in audited(world).findings if finding.what.startswith(what)]
    assert found and found[0].examples
    assert found[0].place.startswith(place)


def test_intake_is_applied_and_filtered_and_parked_and_nothing_else(world: World) -> None:
    counts = audited(world).counts
    kinds = ("applied", "parked", "ignored", "discarded", "notes", "repeated", "behind")
    assert counts["records"] == sum(counts[f"events_{kind}"] for kind in kinds) + counts["records_of_no_case"]
    assert counts["events_applied"] > 8 and counts["view_objects"] > 1 and counts["board_rows"] > 5


def test_the_audit_imports_no_fold_that_it_judges() -> None:
    """Also not by way of another module: what both had wrong in the same way would look right."""
    ask = "import sys, hub.replay.audit.audit; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    assert "hub.replay.audit.fold" in loaded
    assert [name for name in loaded if name.startswith(FOLDS)] == []
