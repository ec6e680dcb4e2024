"""The first tables, as they were: later revisions change them, and never this file."""

from alembic import op
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SERIAL = BigInteger().with_variant(Integer(), "sqlite")
JSON_ = JSON().with_variant(postgresql.JSONB(), "postgresql").with_variant(sqlite.JSON(), "sqlite")
first = MetaData()

Table(
    "commands",
    first,
    Column("seq", SERIAL, autoincrement=True, nullable=False),
    Column("id", Text(), nullable=False),
    Column("case_id", Text(), nullable=False),
    Column("instance", Text(), nullable=False),
    Column("type", Text(), nullable=False),
    Column("body", LargeBinary(), nullable=False),
    Column("state", Text(), nullable=False),
    Column("attempts", Integer(), nullable=False),
    Column("due_at", Text()),
    Column("deadline", Text()),
    Column("owner", Text()),
    Column("effect_id", Text()),
    Column("response", JSON_),
    Column("code", Text()),
    Column("reason", Text()),
    Column("created_at", Text(), nullable=False),
    Column("updated_at", Text(), nullable=False),
    PrimaryKeyConstraint("seq"),
    UniqueConstraint("id"),
    sqlite_autoincrement=True,
)
Table(
    "cursors",
    first,
    Column("instance", Text(), nullable=False),
    Column("stream", Text(), nullable=False),
    Column("cursor", Text(), nullable=False),
    Column("moved_at", Text(), nullable=False),
    PrimaryKeyConstraint("instance", "stream"),
)
Table(
    "identity",
    first,
    Column("name", Text(), nullable=False),
    Column("value", Text(), nullable=False),
    PrimaryKeyConstraint("name"),
)
Table(
    "leases",
    first,
    Column("job", Text(), nullable=False),
    Column("owner", Text(), nullable=False),
    Column("epoch", BigInteger(), nullable=False),
    Column("expires", Float(), nullable=False),
    PrimaryKeyConstraint("job"),
)
Table(
    "links",
    first,
    Column("object", Text(), nullable=False),
    Column("case_id", Text(), nullable=False),
    Column("command_id", Text()),
    PrimaryKeyConstraint("object"),
)
Table(
    "outbox",
    first,
    Column("id", SERIAL, autoincrement=True, nullable=False),
    Column("event_id", Text(), nullable=False),
    Column("instance", Text(), nullable=False),
    Column("type", Text(), nullable=False),
    Column("subject", Text(), nullable=False),
    Column("case_id", Text()),
    Column("body", LargeBinary(), nullable=False),
    Column("recorded_at", Text(), nullable=False),
    Column("held_until", Text()),
    Column("partition", Integer()),
    Column("sequence", BigInteger()),
    Column("published_at", Text()),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("event_id"),
    sqlite_autoincrement=True,
)
Table(
    "parked",
    first,
    Column("id", SERIAL, autoincrement=True, nullable=False),
    Column("ref", Text(), nullable=False),
    Column("kind", Text(), nullable=False),
    Column("instance", Text()),
    Column("case_id", Text()),
    Column("subject", Text()),
    Column("code", Text(), nullable=False),
    Column("seen", JSON_, nullable=False),
    Column("place", Text()),
    Column("rule", Text()),
    Column("headers", JSON_),
    Column("body", LargeBinary(), nullable=False),
    Column("parked_at", Text(), nullable=False),
    Column("state", Text(), nullable=False),
    Column("settled_at", Text()),
    Column("reason", Text()),
    Column("asked", Text()),
    Column("asked_by", Text()),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("ref"),
    sqlite_autoincrement=True,
)
Table(
    "positions",
    first,
    Column("reader", Text(), nullable=False),
    Column("topic", Text(), nullable=False),
    Column("partition", Integer(), nullable=False),
    Column("next_offset", BigInteger(), nullable=False),
    Column("epoch", BigInteger(), nullable=False),
    PrimaryKeyConstraint("reader", "topic", "partition"),
)
Table(
    "sequences",
    first,
    Column("partition", Integer(), nullable=False),
    Column("last", BigInteger(), nullable=False),
    PrimaryKeyConstraint("partition"),
)
Table(
    "timers",
    first,
    Column("id", Text(), nullable=False),
    Column("case_id", Text(), nullable=False),
    Column("name", Text(), nullable=False),
    Column("due_at", Text(), nullable=False),
    PrimaryKeyConstraint("id"),
)


def _index(name: str, table: str, *columns: str, where: str | None = None) -> None:
    only = text(where) if where is not None else None
    Index(name, *(first.tables[table].c[each] for each in columns), sqlite_where=only, postgresql_where=only)


UNFINISHED = "(state NOT IN ('DONE', 'DISCARDED'))"
_index("commands_case", "commands", "case_id")
_index("commands_state", "commands", "instance", "state", where=UNFINISHED)
_index("commands_unfinished", "commands", "case_id", "seq", where=UNFINISHED)
_index("ix_links_case_id", "links", "case_id")
_index("outbox_case", "outbox", "case_id")
_index("outbox_held", "outbox", "subject", where="case_id IS NULL")
_index("outbox_subject", "outbox", "subject")
_index("outbox_unpublished", "outbox", "id", where="published_at IS NULL")
_index("parked_case", "parked", "case_id", where="state = 'open'")
_index("parked_open", "parked", "subject", where="state = 'open'")
_index("ix_timers_due_at", "timers", "due_at")


def upgrade() -> None:
    """Make every table."""
    first.create_all(op.get_bind())
