"""The page of the deals board: won deals with their delivery first."""

from __future__ import annotations

from hub.kit.projection import Board
from projections.deals.fold import DELETED, PROJECTION, STAGES
from projections.deals.table import deals

BOARD = Board(
    projection=PROJECTION,
    order=20,
    parts=STAGES,
    part=deals.c.stage,
    shown=deals.c.stage != DELETED,
    newest=(deals.c.changed_at.desc(),),
    filters=("stage", "owner", "account"),
    fields=(
        "name",
        "account",
        "amount",
        "currency",
        "owner",
        "stage",
        "project",
        "project_name",
        "delivered",
        "tasks_total",
        "tasks_done",
        "tasks_parked",
        "case",
        "times",
    ),
    derive=lambda key, row, today: {"case": row["case_id"]},
)
