"""Commands that wait, in the order in which they are taken: without it PostgreSQL goes through the whole history for each look."""

from alembic import op
from sqlalchemy import text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_WAITING = "state IN ('NEW', 'RETRY', 'UNKNOWN')"


def upgrade() -> None:
    """Exchange the indices; no row changes."""
    op.drop_index("commands_state", "commands")
    _index("commands_waiting", ["instance", "created_at", "seq"], _WAITING)
    _index("commands_due", ["due_at"], _WAITING)
    _index("commands_doubtful", ["instance"], "state IN ('SENDING', 'UNKNOWN')")


def _index(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "commands", columns, sqlite_where=text(where), postgresql_where=text(where))
