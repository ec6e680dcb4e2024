"""Tables for the clock skew of sources, and for conflicts: events delivered again under the same id with other content."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Integer, LargeBinary, Text, UniqueConstraint

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_SERIAL = BigInteger().with_variant(Integer(), "sqlite")


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "clocks",
        Column("instance", Text, primary_key=True),
        Column("stream", Text, primary_key=True),
        Column("ahead", Float, nullable=False),
        Column("at", Text, nullable=False),
    )
    op.create_table(
        "conflicts",
        Column("id", _SERIAL, primary_key=True, autoincrement=True),
        Column("instance", Text, nullable=False),
        Column("event_id", Text, nullable=False),
        Column("type", Text, nullable=False),
        Column("subject", Text, nullable=False),
        Column("first", Text, nullable=False),
        Column("other", Text, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("times", Integer, nullable=False),
        Column("first_at", Text, nullable=False),
        Column("last_at", Text, nullable=False),
        UniqueConstraint("event_id", "other"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_conflicts_instance", "conflicts", ["instance"])
    op.create_index("ix_conflicts_subject", "conflicts", ["subject"])
