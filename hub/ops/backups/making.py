"""Making a backup while the hub runs: first the log, then the ledger, which so has all of that and more, then the home."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from hub.config.home import Home
from hub.errors import FatalError
from hub.ledger import identity, retention, trimmed
from hub.ledger.database import open_engine, writing
from hub.ledger.ledger import look_at
from hub.ledger.retention import BackedUp
from hub.log.event_log import EventLog, Record, read_to_end
from hub.ops.backups import manifest, segments
from hub.ops.backups.ledger_copy import copied
from hub.ops.backups.manifest import BackupFile, BackupManifest, Segment
from schemas.envelope import format_time
from schemas.topics import EVENTS

SEGMENT = 32 * 1024 * 1024
"""Bytes of records of one partition in a file, before they are compressed."""
PASSED_OVER = {".hub", ".git", "__pycache__"}

Progress = Callable[[int, int], None]
"""Told how many records of how many are in the backup."""


def back_up(
    home: Home, log: EventLog, folder: Path, now: datetime, progress: Progress = lambda done, total: None
) -> BackupManifest:
    """Bring a folder up to what the hub has now; what it holds of the log already is not read again.

    Broken off, it goes on from the last file that is whole. Raises FatalError HUB-E5203 for a folder of another log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    known, floors = _begun(home, log, folder, now), _floors(home)
    _add_log(log, folder, known, progress)
    known.ledger = copied(home.ledger_url, folder, format_time(now))
    if _floors(home) != floors:
        _add_log(log, folder, known, progress)  # what the ledger has trimmed since lies in the log
    known.home = list(_files(home, folder))
    known.finished = format_time(now)
    manifest.write(folder, known)
    _note(home, known, folder)
    return known


def _note(home: Home, made: BackupManifest, folder: Path) -> None:
    """Let the ledger know what it need not keep any longer."""
    if made.ledger is None:
        return
    backup = BackedUp(str(folder.resolve()), made.finished, made.log, made.cut, made.next_offsets())
    engine = open_engine(home.ledger_url)
    try:
        with writing(engine) as conn:
            retention.note(conn, backup)
    finally:
        engine.dispose()


def _floors(home: Home) -> Mapping[int, int]:
    with look_at(home.ledger_url, "identity") as conn:
        return trimmed.sequences(conn) if conn is not None else {}


def _begun(home: Home, log: EventLog, folder: Path, now: datetime) -> BackupManifest:
    known, seen, cut = manifest.read(folder), log.identity(EVENTS.name), _cut(home)
    if known is None:
        known = BackupManifest(log=seen, cut=cut)
    if (known.log, known.cut) != (seen, cut) and known.segments:
        raise FatalError("HUB-E5203", folder=folder, known=known.log, seen=seen)
    known.log, known.cut, known.hub, known.begun = seen, cut, home.name, format_time(now)
    manifest.write(folder, known)
    return known


def _cut(home: Home) -> str:
    with look_at(home.ledger_url, "identity") as conn:
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
        for partition in [p for p, size in sizes.items() if size >= SEGMENT]:
            _close(folder, known, open_.pop(partition))
            sizes.pop(partition)
        progress(done := done + len(batch), max(total, done))
    for partition in sorted(open_):
        _close(folder, known, open_[partition])


def _close(folder: Path, known: BackupManifest, records: list[Record]) -> None:
    partition, first, last = records[0].partition, records[0].offset, records[-1].offset
    file = folder / "log" / f"{partition:02d}" / f"{first:016d}.zst"
    manifest.save(file, segments.pack(records))
    told = manifest.piece(folder, file).model_dump()
    known.segments.append(Segment(**told, partition=partition, first=first, next=last + 1, records=len(records)))
    manifest.write(folder, known)


def _files(home: Home, folder: Path) -> Iterator[BackupFile]:
    """Copies of what is in the home, without its data and what git keeps."""
    shutil.rmtree(folder / "home", ignore_errors=True)
    for file in sorted(home.path.rglob("*")):
        part = file.relative_to(home.path)
        if not file.is_file() or file.is_symlink() or PASSED_OVER & set(part.parts) or _is_in(file, folder, home.data):
            continue
        copy = folder / "home" / part
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copy)
        yield manifest.piece(folder, copy)


def _is_in(file: Path, *folders: Path) -> bool:
    return any(file.is_relative_to(folder.resolve()) for folder in folders)
