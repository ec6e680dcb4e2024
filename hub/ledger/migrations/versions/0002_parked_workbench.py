"""Parked work: what was tried, what was corrected, and indices under which a million entries are grouped and paged."""

from alembic import op
from sqlalchemy import JSON, BigInteger, Column, Integer, LargeBinary, Text, text
from sqlalchemy.dialects import postgresql, sqlite

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_JSON = JSON().with_variant(postgresql.JSONB(), "postgresql").with_variant(sqlite.JSON(), "sqlite")


def upgrade() -> None:
    """Add the columns, the table of earlier attempts and the indices; entries that are there keep what they have."""
    for column in (
        Column("tries", Integer, nullable=False, server_default="1"),
        Column("tried_at", Text),
        Column("mark", BigInteger),
        Column("correction", LargeBinary),
        Column("edits", Integer, nullable=False, server_default="0"),
    ):
        op.add_column("parked", column)
    op.create_table(
        "parked_attempts",
        Column("parked", BigInteger, primary_key=True, autoincrement=False),
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("at", Text, nullable=False),
        Column("code", Text, nullable=False),
        Column("seen", _JSON, nullable=False),
        Column("place", Text),
    )
    _index("parked_cause", ["kind", "code", "rule", "place", "instance", "id", "parked_at", "state"], "state = 'open'")
    _index("parked_row", ["id"], "state = 'open'")
    _index("parked_asked", ["kind", "id"], "asked IS NOT NULL")


def _index(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "parked", columns, sqlite_where=text(where), postgresql_where=text(where))
