"""Pushes that were refused: what was signed with its first bytes, and how many of each reason a day."""

from alembic import op
from sqlalchemy import JSON, BigInteger, Column, Integer, LargeBinary, Text
from sqlalchemy.dialects import postgresql, sqlite

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SERIAL = BigInteger().with_variant(Integer(), "sqlite")
_JSON = JSON().with_variant(postgresql.JSONB(), "postgresql").with_variant(sqlite.JSON(), "sqlite")


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "refused",
        Column("id", _SERIAL, primary_key=True, autoincrement=True),
        Column("instance", Text, nullable=False),
        Column("ref", Text, nullable=False, unique=True),
        Column("delivery", Text),
        Column("code", Text, nullable=False),
        Column("seen", _JSON, nullable=False),
        Column("size", Integer, nullable=False),
        Column("kept", Integer, nullable=False),
        Column("times", Integer, nullable=False),
        Column("first_at", Text, nullable=False),
        Column("last_at", Text, nullable=False),
        Column("headers", _JSON, nullable=False),
        Column("head", LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("refused_instance", "refused", ["instance", "last_at"])
    op.create_table(
        "refusals",
        Column("instance", Text, primary_key=True),
        Column("day", Text, primary_key=True),
        Column("code", Text, primary_key=True),
        Column("signed", Integer, nullable=False),
        Column("times", Integer, nullable=False),
        Column("dropped", Integer, nullable=False),
        Column("last_at", Text, nullable=False),
    )
