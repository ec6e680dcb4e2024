"""Restores a backup into an empty log and ledger. Commands carried out since the backup are not executed twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from hub.errors import FatalError, RejectedError
from hub.ledger.ledger import Ledger
from hub.log.event_log import EventLog, Outgoing
from hub.ops.backups import manifest, segments
from hub.ops.backups.ledger_copy import restore_ledger
from hub.ops.backups.manifest import BackupManifest
from hub.ops.recovery import APPEND_TIMEOUT_S, RecoveryPlan, adopt_log, mark_log_as_judged, prepare, publish
from schemas.topics import EVENTS

MAX_BATCH = 2000

Progress = Callable[[str, int, int], None]
"""Called with the step, the amount done, and the total."""


def verify(folder: Path, progress: Progress = lambda what, done, total: None) -> BackupManifest:
    """The manifest of a complete backup, all of whose files match it. Raises FatalError for any other."""
    found = manifest.read(folder)
    if found is None or not found.finished:
        raise FatalError("HUB-E5201", folder=folder, reason="manifest.json: —")
    total, done = sum(each.bytes for each in found.pieces), 0
    for each in found.pieces:
        manifest.check(folder, each)
        progress("verify", done := done + each.bytes, total)
    return found


def restore_home(found: BackupManifest, folder: Path, home: Path) -> list[str]:
    """Write the home's files when there is no home yet; an existing home stays, and the names of differing files are returned."""
    if not (home / "hub.yaml").is_file():
        for each in found.home:
            place = home / Path(each.file).relative_to("home")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(folder / each.file, place)
        return []
    return [
        str(part)
        for each in found.home
        for part in [Path(each.file).relative_to("home")]
        if not (home / part).is_file() or manifest.digest(home / part) != each.sha256
    ]


def restore(
    found: BackupManifest,
    folder: Path,
    log: EventLog,
    ledger_url: str,
    now: datetime,
    progress: Progress = lambda what, done, total: None,
) -> int:
    """Fill an empty log and an empty ledger; returns how many records the log has then.

    Requests of events from before `now` are looked up before they are executed: the former hub may have carried them out.
    """
    if any(log.ends(EVENTS.name).values()):
        raise FatalError("HUB-E5204", events=sum(log.ends(EVENTS.name).values()), since=0)
    if found.ledger is not None:
        restore_ledger(found.ledger, ledger_url, folder)
    _append(found, folder, log, progress)
    ledger = Ledger(ledger_url)
    try:
        if found.ledger is not None:
            publish(log, ledger, lambda done, total: progress("ledger", done, total))
        wanted = RecoveryPlan(boards=True, requests=True, doubt=True)
        ledger.writer.run(lambda conn: prepare(conn, log, wanted, now))
        ledger.writer.run(lambda conn: adopt_log(conn, log))
    finally:
        ledger.close()
    return sum(log.ends(EVENTS.name).values())


def _append(found: BackupManifest, folder: Path, log: EventLog, progress: Progress) -> None:
    writer, done = log.writer(), 0
    try:
        mark_log_as_judged(log, writer)
        for segment in sorted(found.segments, key=lambda each: (each.partition, each.first)):
            records = [
                Outgoing(EVENTS.name, key or b"", value, segment.partition)
                for _, key, value in segments.read(folder, segment)
            ]
            for start in range(0, len(records), MAX_BATCH):
                writer.append(records[start : start + MAX_BATCH], APPEND_TIMEOUT_S)
                progress("log", done := done + len(records[start : start + MAX_BATCH]), found.records)
    except RejectedError as error:
        raise FatalError(error.code, **error.seen) from error
    finally:
        writer.close()
