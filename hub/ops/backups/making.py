"""Makes a backup while the hub runs: first the log, then the ledger, which then covers at least that log, then the home."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from hub.errors import FatalError
from hub.home import Home
from hub.ledger import identity, retention, trimmed
from hub.ledger.database import open_engine, writing
from hub.ledger.ledger import read_snapshot
from hub.ledger.retention import BackupRecord
from hub.log.event_log import EventLog, Record, read_to_end
from hub.ops.backups import manifest, segments
from hub.ops.backups.ledger_copy import copy_ledger
from hub.ops.backups.manifest import BackupFile, BackupManifest, Segment
from schemas.envelope import format_time
from schemas.topics import EVENTS

SEGMENT_BYTES = 32 * 1024 * 1024
"""Bytes of records of one partition in a file, before they are compressed."""
EXCLUDED_NAMES = {".hub", ".git", "__pycache__"}

Progress = Callable[[int, int], None]
"""Called with the number of records in the backup, and the total."""


def back_up(
    home: Home, log: EventLog, folder: Path, now: datetime, progress: Progress = lambda done, total: None
) -> BackupManifest:
    """Update a backup folder to the hub's current content, incrementally: log records already in it are not read again.

    After an interruption it resumes from the last complete file. Raises FatalError HUB-E5203 for a folder of another log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    known, floors = _begun(home, log, folder, now), _floors(home)
    _add_log(log, folder, known, progress)
    known.ledger = copy_ledger(home.ledger_url, folder, format_time(now))
    if _floors(home) != floors:
        _add_log(log, folder, known, progress)  # what the ledger has trimmed since is in the log
    known.home = list(_files(home, folder))
    known.finished = format_time(now)
    manifest.write(folder, known)
    _note(home, known, folder)
    return known


def _note(home: Home, made: BackupManifest, folder: Path) -> None:
    """Record the backup in the ledger: what it covers may be trimmed."""
    if made.ledger is None:
        return
    backup = BackupRecord(str(folder.resolve()), made.finished, made.log, made.cut, made.next_offsets())
    engine = open_engine(home.ledger_url)
    try:
        with writing(engine) as conn:
            retention.record_backup(conn, backup)
    finally:
        engine.dispose()


def _floors(home: Home) -> Mapping[int, int]:
    with read_snapshot(home.ledger_url, "identity") as conn:
        return trimmed.sequences(conn) if conn is not None else {}


def _begun(home: Home, log: EventLog, folder: Path, now: datetime) -> BackupManifest:
    known, log_id, cut = manifest.read(folder), log.identity(EVENTS.name), _cut(home)
    if known is None:
        known = BackupManifest(log=log_id, cut=cut)
    if (known.log, known.cut) != (log_id, cut) and known.segments:
        raise FatalError("HUB-E5203", folder=folder, known=known.log, seen=log_id)
    known.log, known.cut, known.hub, known.begun = log_id, cut, home.name, format_time(now)
    manifest.write(folder, known)
    return known


def _cut(home: Home) -> str:
    with read_snapshot(home.ledger_url, "identity") as conn:
        return identity.last_cut(conn) if conn is not None else ""


def _add_log(log: EventLog, folder: Path, known: BackupManifest, progress: Progress) -> None:
    starts, ends, there = log.starts(EVENTS.name), log.ends(EVENTS.name), known.next_offsets()
    positions = {p: max(there.get(p, 0), starts[p]) for p, end in ends.items() if there.get(p, 0) < end}
    done, total = known.records, known.records + sum(ends[p] - position for p, position in positions.items())
    open_: dict[int, list[Record]] = {}
    sizes: dict[int, int] = {}
    for batch in read_to_end(log, EVENTS.name, positions):
        for record in batch:
            open_.setdefault(record.partition, []).append(record)
            sizes[record.partition] = sizes.get(record.partition, 0) + len(record.value or b"") + 32
        for partition in [p for p, size in sizes.items() if size >= SEGMENT_BYTES]:
            _close(folder, known, open_.pop(partition))
            sizes.pop(partition)
        progress(done := done + len(batch), max(total, done))
    for partition in sorted(open_):
        _close(folder, known, open_[partition])


def _close(folder: Path, known: BackupManifest, records: list[Record]) -> None:
    partition, first, last = records[0].partition, records[0].offset, records[-1].offset
    file = folder / "log" / f"{partition:02d}" / f"{first:016d}.zst"
    manifest.save(file, segments.pack(records))
    piece = manifest.piece(folder, file).model_dump()
    known.segments.append(Segment(**piece, partition=partition, first=first, next=last + 1, records=len(records)))
    manifest.write(folder, known)


def _files(home: Home, folder: Path) -> Iterator[BackupFile]:
    """Copies of the home's files, without its data folder and `.git`."""
    shutil.rmtree(folder / "home", ignore_errors=True)
    for file in sorted(home.path.rglob("*")):
        part = file.relative_to(home.path)
        if (
            not file.is_file()
            or file.is_symlink()
            or EXCLUDED_NAMES & set(part.parts)
            or _is_in(file, folder, home.data)
        ):
            continue
        copy = folder / "home" / part
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copy)
        yield manifest.piece(folder, copy)


def _is_in(file: Path, *folders: Path) -> bool:
    return any(file.is_relative_to(folder.resolve()) for folder in folders)
