"""What is left of events whose rows are trimmed, and how far each partition is."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Text

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "trimmed",
        Column("id_hash", LargeBinary, primary_key=True),
        Column("content", LargeBinary),
        Column("people", LargeBinary),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "floors",
        Column("partition", Integer, primary_key=True, autoincrement=False),
        Column("sequence", BigInteger, nullable=False),
        Column("events", BigInteger, nullable=False),
        Column("next_offset", BigInteger, nullable=False),
        Column("log", Text, nullable=False),
        Column("stuck", BigInteger),
    )
