"""The first tables."""

from alembic import op

from hub.ledger.ledger import metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table. The next revision must freeze this one by spelling its tables out."""
    metadata.create_all(op.get_bind())
