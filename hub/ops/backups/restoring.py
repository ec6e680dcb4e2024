"""Putting a backup in the place of a log and a ledger that hold nothing. What was done since is not done twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from hub.errors import FatalError, RejectedError
from hub.ledger.ledger import Ledger
from hub.log.event_log import EventLog, Outgoing
from hub.ops.backups import manifest, segments
from hub.ops.backups.ledger_copy import put_back
from hub.ops.backups.manifest import BackupManifest
from hub.ops.recovery import PATIENCE, RecoveryPlan, prepare, publish, say_judged, settle
from schemas.topics import EVENTS

AT_ONCE = 2000

Progress = Callable[[str, int, int], None]
"""Told how much of what is done."""


def verified(folder: Path, progress: Progress = lambda what, done, total: None) -> BackupManifest:
    """The manifest of a whole backup, every file of which is as it says. Raises FatalError for any other."""
    found = manifest.read(folder)
    if found is None or not found.finished:
        raise FatalError("HUB-E5201", folder=folder, reason="manifest.json: —")
    total, done = sum(each.bytes for each in found.pieces), 0
    for each in found.pieces:
        manifest.check(folder, each)
        progress("verify", done := done + each.bytes, total)
    return found


def put_home_back(found: BackupManifest, folder: Path, home: Path) -> list[str]:
    """Make the home's files where there is no home; where there is one it stays, and the files that differ are named."""
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
    """Fill an empty log and a ledger that holds nothing; how many records the log has then.

    What is asked for by events from before `now` is looked up before it is done: the hub of before may have done it since.
    """
    if any(log.ends(EVENTS.name).values()):
        raise FatalError("HUB-E5204", events=sum(log.ends(EVENTS.name).values()), since=0)
    if found.ledger is not None:
        put_back(found.ledger, ledger_url, folder)
    _append(found, folder, log, progress)
    ledger = Ledger(ledger_url)
    try:
        if found.ledger is not None:
            publish(log, ledger, lambda done, total: progress("ledger", done, total))
        wanted = RecoveryPlan(boards=True, requests=True, doubt=True)
        ledger.writer.run(lambda conn: prepare(conn, log, wanted, now))
        ledger.writer.run(lambda conn: settle(conn, log))
    finally:
        ledger.close()
    return sum(log.ends(EVENTS.name).values())


def _append(found: BackupManifest, folder: Path, log: EventLog, progress: Progress) -> None:
    writer, done = log.writer(), 0
    try:
        say_judged(log, writer)
        for segment in sorted(found.segments, key=lambda each: (each.partition, each.first)):
            records = [
                Outgoing(EVENTS.name, key or b"", value, segment.partition)
                for _, key, value in segments.read(folder, segment)
            ]
            for start in range(0, len(records), AT_ONCE):
                writer.append(records[start : start + AT_ONCE], PATIENCE)
                progress("log", done := done + len(records[start : start + AT_ONCE]), found.records)
    except RejectedError as error:
        raise FatalError(error.code, **error.seen) from error
    finally:
        writer.close()
