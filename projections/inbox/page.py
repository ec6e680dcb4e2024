"""The page of the inbox board: the messages that the hub sent, filtered by person."""

from __future__ import annotations

from sqlalchemy import true

from hub.kit.projection import Board
from projections.inbox.fold import PROJECTION
from projections.inbox.table import messages

BOARD = Board(
    projection=PROJECTION,
    order=30,
    parts=("all",),
    part=None,
    shown=true(),
    newest=(messages.c.sent_at.desc(),),
    filters=("person", "instance", "case_id"),
    fields=("instance", "person", "text", "sent_at", "case", "why"),
    derive=lambda key, row, today: {"case": row["case_id"]},
)
