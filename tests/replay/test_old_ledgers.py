"""A ledger of each revision that was ever released is brought up by the present code, with its events, and is worked on at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from hub.ledger import outbox
from hub.ledger.database import migrate, open_engine, writing
from hub.ledger.ledger import HEAD, MIGRATIONS, Ledger, metadata
from schemas.topics import PARTITIONS
from tests.events import AT, won

REVISIONS = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]
SENT = won("O-1", version="1")
OLD = """INSERT INTO outbox
(event_id, instance, type, subject, case_id, body, recorded_at, partition, sequence, published_at)
VALUES (:id, 'crm', :type, :subject, :case, :body, :at, :p, :s, :published)"""


def test_the_newest_revision_is_the_one_that_the_code_asks_for() -> None:
    assert REVISIONS[0] == HEAD


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_ledger_of_an_older_revision_goes_on_where_it_was(tmp_path: Path, revision: str) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    engine = open_engine(url)
    migrate(engine, MIGRATIONS, revision)
    partition = 3
    with writing(engine) as conn:
        row = {"id": SENT.id, "type": SENT.type, "subject": SENT.subject, "case": SENT.case, "body": SENT.to_json()}
        conn.execute(text(OLD), {**row, "at": AT, "p": partition, "s": 41, "published": None})
        conn.execute(text("INSERT INTO sequences (partition, last) VALUES (:p, 41)"), {"p": partition})
        conn.execute(text("INSERT INTO identity (name, value) VALUES ('outbox', 'abcd')"))
    engine.dispose()

    ledger = Ledger(url)
    try:
        assert ledger.outbox_id == "abcd"
        ledger.writer.run(lambda conn: outbox.record(conn, [SENT, won("O-2", version="1")], "crm"))
        taken = ledger.writer.run(lambda conn: outbox.take(conn, 10, PARTITIONS))
        assert (taken[0].case, taken[0].sequence) == (SENT.case, 41)
        assert len(taken) == 2  # the old event is known by its id
        with ledger.engine.begin() as conn:
            assert compare_metadata(MigrationContext.configure(conn), metadata) == []
    finally:
        ledger.close()
