"""The board of tasks: a column a state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hub.projection import Row
from projections.board import Board
from projections.tasks.cards import OPEN, PROJECTION, STATES
from projections.tasks.table import cards


def derive(key: str, row: Row, today: str) -> Mapping[str, Any]:
    """Overdue is a matter of today, so it is not kept; `case` is the word outside."""
    overdue = bool(row["due"]) and row["due"] < today and row["state"] in OPEN
    return {"overdue": overdue, "case": row["case_id"], "kind": key.partition("/")[0]}


BOARD = Board(
    projection=PROJECTION,
    template="tasks/page.html",
    parts=STATES,
    part=cards.c.state,
    shown=cards.c.became.is_(None),
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
)
