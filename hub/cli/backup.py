"""`hub backup` and `hub restore`: copy to a folder everything that cannot be rebuilt (log, ledger, home), and restore it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.terminal import HERE, HomeOption, JsonOption, answer, progress_bars, say, text
from hub.errors import FatalError

if TYPE_CHECKING:
    from hub.cli.running_hub import RunningHub
    from hub.log.event_log import EventLog
    from hub.ops.backups.manifest import BackupManifest

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="备份目录 · the folder of backups")]
MB = 1_000_000


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "backup", help="备份日志、台账和主目录，运行中也可 · keep log, ledger and home in a folder, also while it runs"
    )(backup)
    app.command("restore", help="从备份恢复 · bring log and ledger back from a backup")(restore)


def backup(folder: FolderArgument, home: HomeOption = HERE, json: JsonOption = False) -> None:
    """Write an incremental backup: the first one copies everything, later ones what was added since."""
    from hub.cli.running_hub import RunningHub, opened_log
    from hub.ops.backups.making import back_up

    hub, began = RunningHub.of(home), time.monotonic()
    before = _records(folder)
    with opened_log(hub) as log, progress_bars(json) as shown:
        label = text("备份", "backup")
        made = back_up(hub.home, log, folder, datetime.now(UTC), lambda done, total: shown.show(label, done, total))
    report = _report(made, before, folder, time.monotonic() - began)
    if json:
        answer(report)
        return
    line = text(
        "  ✔ {folder}：事件 {events} 条（新增 {new}），{mb} MB，{seconds} 秒",
        "  ✔ {folder}: {events} events ({new} new), {mb} MB, {seconds} s",
    )
    say(line.format_map(report))
    say(text("    其中有 .env 中的密钥：请像它一样保管", "    it holds the secrets of .env: keep it as carefully"))


def _records(folder: Path) -> int:
    """The number of events in the backup so far; 0 in a new folder."""
    from hub.ops.backups.manifest import read

    manifest = read(folder)
    return manifest.records if manifest is not None else 0


def _report(made: BackupManifest, before: int, folder: Path, seconds: float) -> dict[str, Any]:
    return {
        "ok": True,
        "folder": str(folder),
        "events": made.records,
        "new": made.records - before,
        "ledger": made.ledger.kind if made.ledger is not None else None,
        "files": len(made.home),
        "mb": round(sum(each.bytes for each in made.pieces) / MB, 1),
        "seconds": round(seconds, 1),
    }


@dataclass(frozen=True)
class ExistingData:
    """Existing data of a home: the number of events, how many of them the backup lacks (`since`), and which store has them."""

    events: int
    since: int
    log: bool
    ledger: bool


def restore(
    folder: FolderArgument,
    home: HomeOption = HERE,
    replace: Annotated[
        bool, typer.Option("--replace", help="搁置现有的日志和台账 · set the log and the ledger that are there aside")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Verify every file, then fill the log and ledger of a stopped hub; boards and state are rebuilt from the log."""
    from hub.cli.repair_losses import empty_boards
    from hub.cli.running_hub import RunningHub, opened_log
    from hub.home import RULES_ANNOUNCED
    from hub.ops.backups import restoring

    began = time.monotonic()
    with progress_bars(json) as shown:
        manifest = restoring.verify(folder, shown.show)
        differing = restoring.restore_home(manifest, folder, home)
        hub = RunningHub.of(home)
        if hub.runs:
            raise FatalError("HUB-E2118")
        aside = _make_room(hub, manifest, replace=replace)
        with opened_log(hub) as log:
            events = restoring.restore(manifest, folder, log, hub.home.ledger_url, datetime.now(UTC), shown.show)
            (hub.home.data / RULES_ANNOUNCED).unlink(missing_ok=True)
            _forget_folds(hub, log)
            empty_boards(hub, log)
    report = {
        "ok": True, "events": events, "of": manifest.finished, "seconds": round(time.monotonic() - began, 1),
        "set_aside": aside, "home_differs": differing,
    }  # fmt: skip
    if json:
        answer(report)
        return
    for line in _lines(report):
        say(line)


def _lines(report: dict[str, Any]) -> Iterator[str]:
    for name in report["set_aside"]:
        yield text("  ✔ 已搁到一边：{}", "  ✔ set aside: {}").format(name)
    for name in report["home_differs"]:
        yield text("  ! {} 与备份中的不同，未改动", "  ! {} differs from the backup, and was left as it is").format(
            name
        )
    yield text(
        "  ✔ 已恢复到 {of}：事件 {events} 条，{seconds} 秒；启动：hub up",
        "  ✔ restored to {of}: {events} events, {seconds} s; start it: hub up",
    ).format_map(report)


def _forget_folds(hub: RunningHub, log: EventLog) -> None:
    """Delete the processor's state: on a cluster it may have outlived the log that it was folded from."""
    from hub.cli.repair_losses import client_of
    from hub.ops.repair import folded_places
    from hub.processor.state_reset import forget

    if folded_places(log):
        forget(client_of(log), hub.home.config.kafka.replication)


def _make_room(hub: RunningHub, manifest: BackupManifest, *, replace: bool) -> list[str]:
    """Set aside the log and the ledger if they hold data; raises FatalError HUB-E5204 when they do and `replace` is False."""
    from hub.cli.running_hub import set_log_aside
    from hub.ledger.database import set_aside_whole

    existing = _existing_data(hub, manifest)
    if not existing.log and not existing.ledger:
        return []
    if not replace:
        raise FatalError("HUB-E5204", events=existing.events, since=existing.since)
    _refuse_immovable(hub, manifest, existing)
    aside = [str(set_log_aside(hub, "replaced"))] if existing.log else []
    return [*aside, str(set_aside_whole(hub.home.ledger_url, "replaced"))] if existing.ledger else aside


def _refuse_immovable(hub: RunningHub, manifest: BackupManifest, existing: ExistingData) -> None:
    """Raise FatalError for a store that can't be set aside or filled: before anything is moved."""
    from hub.ledger.database import is_a_file, shown_url
    from hub.ops.backups.ledger_copy import refuse_other_kind

    if manifest.ledger is not None:
        refuse_other_kind(manifest.ledger, hub.home.ledger_url)
    if existing.log and not hub.home.config.kafka.embedded:
        raise FatalError("HUB-E5207", what=hub.bootstrap)
    if existing.ledger and not is_a_file(hub.home.ledger_url):
        raise FatalError("HUB-E5207", what=shown_url(hub.home.ledger_url))


def _existing_data(hub: RunningHub, manifest: BackupManifest) -> ExistingData:
    from hub.cli.running_hub import opened_log
    from hub.ledger import outbox
    from hub.ledger.ledger import read_snapshot
    from hub.log.outbox_in_log import latest_outbox, tails
    from schemas.topics import EVENTS

    with read_snapshot(hub.home.ledger_url, "outbox") as conn:
        accepted = outbox.counts(conn)["accepted"] if conn is not None else 0
        in_ledger = outbox.sequence_ends(conn) if conn is not None else {}
    records, in_log = 0, dict[int, int]()
    if not hub.home.config.kafka.embedded or (hub.home.data / "kafka" / "log").is_dir():
        with opened_log(hub) as log:
            records = sum(log.ends(EVENTS.name).values())
            in_log = tails(log, latest_outbox(log) or "", in_ledger) if records else {}
    in_backup = manifest.ledger.given if manifest.ledger is not None else {}
    newest = {p: max(in_log.get(p, 0), in_ledger.get(p, 0)) for p in in_log.keys() | in_ledger.keys()}
    since = sum(max(0, last - in_backup.get(p, 0)) for p, last in newest.items())
    return ExistingData(max(records, accepted), since, records > 0, accepted > 0)
