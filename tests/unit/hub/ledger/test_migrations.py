"""A ledger of an older version is brought to the present tables, with all that stands in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from hub.errors import FatalError
from hub.ledger import parked
from hub.ledger.database import migrate, open_engine, set_aside, writing
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
        (entry,) = parked.open_entries(conn)
        (before,) = parked.earlier_attempts(conn, entry.id)
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


@pytest.mark.parametrize("raw", [b"no database" * 1000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_ledger_is_refused_and_left_where_it_is(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "ledger.sqlite"
    file.write_bytes(raw)
    with pytest.raises(FatalError, match="HUB-E5008"):
        Ledger(f"sqlite:///{file}")
    assert file.read_bytes() == raw


def test_what_is_set_aside_is_kept_and_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "boards.sqlite"
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).write_bytes(b"x")
    aside = set_aside(f"sqlite:///{file}")
    assert aside is not None
    assert list(tmp_path.iterdir()) == [aside]
    assert set_aside(f"sqlite:///{file}") is None
    assert set_aside("postgresql+psycopg://hub@nowhere/boards") is None
