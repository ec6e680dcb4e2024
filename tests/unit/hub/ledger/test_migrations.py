"""A ledger of an older version is brought to the present tables, with all that stands in it."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from hub.ledger import parked
from hub.ledger.database import migrate, open_engine, writing
from hub.ledger.ledger import HEAD, MIGRATIONS, Ledger, metadata
from tests.events import AT

OLD_ENTRY = f"""INSERT INTO parked (ref, kind, case_id, subject, code, seen, place, rule, body, parked_at, state)
VALUES ('event/e1', 'event', 'opportunity/crm/O-1', 'opportunity/crm/O-1', 'HUB-E3140', '{{"role": "chief"}}',
'rules/won.yaml:7:30', 'won', '{{}}', '{AT}', 'open')"""


def of_version(url: str, version: str) -> None:
    """A ledger as an older hub left it, with an entry that is parked."""
    engine = open_engine(url)
    migrate(engine, MIGRATIONS, version)
    with writing(engine) as conn:
        conn.execute(text(OLD_ENTRY))
    engine.dispose()


def test_the_revisions_make_the_tables_that_the_code_knows(ledger: Ledger) -> None:
    with ledger.engine.begin() as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []


def test_an_old_ledger_keeps_what_it_has_and_takes_new_attempts(url: str) -> None:
    of_version(url, "0001")
    ledger = Ledger(url)
    again = {
        "ref": "event/e1",
        "kind": "event",
        "code": "HUB-E3140",
        "seen": {"role": "boss"},
        "body": b"{}",
        "mark": 9,
    }
    ledger.writer.run(lambda conn: parked.park(conn, {**again, "parked_at": AT}))
    with ledger.reading() as conn:
        (entry,) = parked.opened(conn)
        (before,) = parked.tried(conn, entry.id)
    assert (entry.tries, entry.seen, entry.edits, entry.correction) == (2, {"role": "boss"}, 0, None)
    assert (before.number, before.at, before.seen, before.place) == (1, AT, {"role": "chief"}, "rules/won.yaml:7:30")
    ledger.close()


def test_a_ledger_is_brought_up_once(url: str) -> None:
    of_version(url, HEAD)
    Ledger(url).close()
    ledger = Ledger(url)
    with ledger.reading() as conn:
        assert conn.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [HEAD]
    ledger.close()
