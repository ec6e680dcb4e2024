"""The page of the tasks board: one column per state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, select

from hub.kit.projection import Board, Row
from projections.deals.fold import DELETED
from projections.deals.table import deals
from projections.entities.fold import names
from projections.tasks.fold import OPEN, PROJECTION, STATES, offers, steps_digest
from projections.tasks.table import cards


def derive(_key: str, row: Row, today: str) -> Mapping[str, Any]:
    """Fields computed on read: `overdue` depends on today, so it is not stored; `case` is the public name of `case_id`."""
    overdue = bool(row["due"]) and row["due"] < today and row["state"] in OPEN
    return {
        "overdue": overdue,
        "case": row["case_id"],
        "offers": offers(row["state"]),
        "seen": steps_digest(row["marks"]),
    }


def enrich(conn: Connection, items: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The deal and the project that the cards belong to, by case."""
    cases = sorted({item["case_id"] for item in items})
    found = select(deals.c.case_id, deals.c.name, deals.c.account, deals.c.stage).where(deals.c.case_id.in_(cases))
    named = {
        row.case_id: {"name": row.name, "account": row.account, "deleted": row.stage == DELETED}
        for row in conn.execute(found)
    }
    return {"deals": named, "projects": names(conn, "project", cases)}


BOARD = Board(
    projection=PROJECTION,
    order=10,
    parts=STATES,
    part=cards.c.state,
    shown=and_(cards.c.became.is_(None), cards.c.state != "deleted"),
    newest=(cards.c.changed_at.desc(),),
    filters=("state", "assignee", "project", "case_id", "instance"),
    fields=(
        "state",
        "title",
        "project",
        "assignee",
        "due",
        "overdue",
        "instance",
        "case",
        "by",
        "times",
        "why",
        "code",
        "reason",
    ),
    derive=derive,
    enrich=enrich,
)
