"""One consistent copy of a ledger: SQLite by its own backup, PostgreSQL by COPY of every table in one snapshot."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, inspect, text
from sqlalchemy.engine import make_url

from hub.errors import FatalError
from hub.ledger import identity, outbox
from hub.ledger.database import metadata, migrate, open_engine, translated, writing
from hub.ledger.ledger import HEAD, MIGRATIONS, read_snapshot
from hub.ops.backups.manifest import BackupFile, LedgerSnapshot, piece

FOLDER = "ledger"
SQLITE = f"{FOLDER}/ledger.sqlite"
_VERSION = "alembic_version"


def copy_ledger(url: str, folder: Path, at: str) -> LedgerSnapshot | None:
    """Copy the ledger while others write to it; None when there is no ledger yet."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        return None
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    if parsed.get_backend_name() == "sqlite":
        return _copy_file(Path(parsed.database or ""), folder, at)
    engine = open_engine(url)
    try:
        with translated(engine), engine.connect() as conn:
            conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            if not inspect(conn).has_table(outbox.outbox.name):
                return None
            return _description(conn, at, [_dump(conn, name, folder) for name in _tables(conn)])
    finally:
        engine.dispose()


def _copy_file(source: Path, folder: Path, at: str) -> LedgerSnapshot:
    file = folder / SQLITE
    partial = file.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(source)) as ours, contextlib.closing(sqlite3.connect(partial)) as copy:
        ours.backup(copy)  # in one step: with several, each write of the hub would restart the copy
        copy.execute("PRAGMA journal_mode=DELETE")
        (revision,) = copy.execute(f"SELECT version_num FROM {_VERSION}").fetchone()  # noqa: S608  # ours
        (name,) = copy.execute("SELECT value FROM identity WHERE name = 'outbox'").fetchone()
        given = dict(copy.execute("SELECT partition, last FROM sequences").fetchall())
    partial.chmod(0o600)
    partial.replace(file)
    return LedgerSnapshot(
        kind="sqlite", revision=revision, at=at, outbox=name, given=given, pieces=[piece(folder, file)]
    )


def _description(conn: Connection, at: str, pieces: list[BackupFile]) -> LedgerSnapshot:
    return LedgerSnapshot(
        kind="postgresql",
        revision=str(conn.execute(text(f"SELECT version_num FROM {_VERSION}")).scalar_one()),  # noqa: S608  # ours
        at=at,
        outbox=identity.get_value(conn, "outbox") or "",
        given=outbox.sequence_ends(conn),
        pieces=pieces,
    )


def _tables(conn: Connection) -> list[str]:
    there = set(inspect(conn).get_table_names())
    return sorted(there & set(metadata.tables))


def _dump(conn: Connection, table: str, folder: Path) -> BackupFile:
    file = folder / FOLDER / f"{table}.copy"
    connection: Any = conn.connection.driver_connection
    with file.open("wb") as out, connection.cursor() as cursor:
        file.chmod(0o600)
        with cursor.copy(f'COPY "{table}" ({_columns(conn, table)}) TO STDOUT') as copy:
            for block in copy:
                out.write(block)
    return piece(folder, file)


def _columns(conn: Connection, table: str) -> str:
    return ", ".join(f'"{column["name"]}"' for column in inspect(conn).get_columns(table))


def is_empty(url: str) -> bool:
    """Whether a database holds no ledger, or one that has accepted no event."""
    with read_snapshot(url, outbox.outbox.name) as conn:
        return conn is None or not outbox.counts(conn)["accepted"]


def refuse_other_kind(snapshot: LedgerSnapshot, url: str) -> None:
    """Raise FatalError for a database of another kind than the copied one."""
    parsed = make_url(url)
    if parsed.get_backend_name() != snapshot.kind:
        raise FatalError("HUB-E5205", kind=snapshot.kind, url=parsed.render_as_string(hide_password=True))


def restore_ledger(snapshot: LedgerSnapshot, url: str, folder: Path) -> None:
    """Restore the copy over an empty ledger. Raises FatalError for another kind of database."""
    parsed = make_url(url)
    refuse_other_kind(snapshot, url)
    if snapshot.kind == "sqlite":
        _restore_file(folder / snapshot.pieces[0].file, Path(parsed.database or ""))
        return
    engine = open_engine(url)
    try:
        with writing(engine) as conn:
            _drop_empty(conn)
        migrate(engine, MIGRATIONS, snapshot.revision)
        with writing(engine) as conn:
            for each in snapshot.pieces:
                _load(conn, Path(each.file).stem, folder / each.file)
            _advance_key_sequences(conn)
        migrate(engine, MIGRATIONS, HEAD)
    finally:
        engine.dispose()


def _restore_file(copy: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f"{place.name}.restoring")
    shutil.copyfile(copy, partial)
    partial.chmod(0o600)
    for suffix in ("-wal", "-shm"):
        place.with_name(place.name + suffix).unlink(missing_ok=True)
    partial.replace(place)


def _drop_empty(conn: Connection) -> None:
    found = MetaData()
    found.reflect(conn, only=lambda name, _: name in {*_tables(conn), _VERSION})
    found.drop_all(conn)


def _load(conn: Connection, table: str, file: Path) -> None:
    connection: Any = conn.connection.driver_connection
    conn.execute(metadata.tables[table].delete())
    with connection.cursor() as cursor, cursor.copy(f'COPY "{table}" ({_columns(conn, table)}) FROM STDIN') as copy:
        for block in _blocks(file):
            copy.write(block)


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as raw:
        while block := raw.read(1 << 20):
            yield block


def _advance_key_sequences(conn: Connection) -> None:
    """Set the autoincrement sequences beyond the loaded keys."""
    for table in _tables(conn):
        for column in inspect(conn).get_columns(table):
            if column.get("autoincrement") is True and "nextval" in str(column.get("default")):
                name = column["name"]
                last = f'SELECT COALESCE(MAX("{name}"), 0) + 1 FROM "{table}"'  # noqa: S608  # names of ours
                conn.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('\"{table}\"', '{name}'), ({last}), false)")
