"""The table of deals."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Boolean, Column, Integer, MetaData, Table, Text

from hub.kit.projection import TABLE_OPTIONS

deals = Table(
    "board_deals",
    MetaData(),
    Column("key", Text, primary_key=True),  # opportunity/<instance>/<id>
    Column("case_id", Text, nullable=False),
    Column("name", Text),
    Column("account", Text),
    Column("amount", Text),  # decimal text, in `currency`
    Column("currency", Text),
    Column("owner", Text),
    Column("stage", Text, nullable=False),
    Column("project", Text),
    Column("project_name", Text),
    Column("delivered", Boolean, nullable=False),
    Column("tasks_total", Integer, nullable=False),
    Column("tasks_done", Integer, nullable=False),
    Column("tasks_parked", Integer, nullable=False),
    Column("changed_at", Text, nullable=False),
    Column("tasks", JSON, nullable=False),  # task → its step marks and times; request that became a task → that task
    Column("times", JSON, nullable=False),
    Column("marks", JSON, nullable=False),
    **TABLE_OPTIONS,
)

EMPTY: dict[str, Any] = {str(column.name): None for column in deals.columns if column.name != "key"} | {
    "stage": "open",
    "delivered": False,
    "tasks_total": 0,
    "tasks_done": 0,
    "tasks_parked": 0,
    "changed_at": "",
    "tasks": {},
    "times": {},
    "marks": {},
}
