"""The table of entities: the state of each business object, one row per case."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Index, MetaData, Table, Text

from hub.kit.projection import TABLE_OPTIONS

entities = Table(
    "board_entities",
    MetaData(),
    Column("key", Text, primary_key=True),  # <reference>@<hash of the case>
    Column("ref", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("case_id", Text, nullable=False),
    Column("stage", Text),
    Column("version", Text, nullable=False),
    Column("time", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Column("sources", JSON, nullable=False),  # field → [source, time]
    Column("entered", JSON, nullable=False),
    Column("was", Text),  # the stage before it was deleted
    **TABLE_OPTIONS,
)
Index("entities_ref", entities.c.ref)
Index("entities_case", entities.c.case_id, entities.c.kind)
