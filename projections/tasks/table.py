"""The table of task cards."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column, Index, MetaData, Table, Text

from hub.kit.projection import TABLE_OPTIONS

cards = Table(
    "board_tasks",
    MetaData(),
    Column("key", Text, primary_key=True),  # task/<instance>/<id>; request/<instance>/<command> until there is an id
    Column("state", Text, nullable=False),
    Column("instance", Text, nullable=False),
    Column("case_id", Text, nullable=False),
    Column("title", Text),
    Column("project", Text),
    Column("assignee", Text),
    Column("due", Text),
    Column("by", Text),  # who did the newest step
    Column("code", Text),  # HUB-E… of the newest time it was parked
    Column("reason", Text),
    Column("became", Text),  # of a request: the task that it became; boards show that one
    Column("changed_at", Text, nullable=False),
    Column("times", JSON, nullable=False),
    Column("why", JSON(none_as_null=True)),
    Column("marks", JSON, nullable=False),
    **TABLE_OPTIONS,
)
Index("tasks_case", cards.c.case_id)

EMPTY: dict[str, Any] = {str(column.name): None for column in cards.columns if column.name != "key"} | {
    "times": {},
    "marks": {},
    "state": "requested",
    "changed_at": "",
}
