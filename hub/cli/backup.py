"""`hub backup` and `hub restore`: all that cannot be made anew, kept in a folder, and brought back from it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.terminal import HERE, HomeOption, JsonOption, answer, bar, say, text
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
    """Bring a folder up to what the hub has now: the first time all of it, then what has come since."""
    from hub.cli.running_hub import RunningHub, opened_log
    from hub.ops.backups.making import back_up

    hub, began = RunningHub.of(home), time.monotonic()
    before = _records(folder)
    with opened_log(hub) as log, bar(json) as shown:
        label = text("备份", "backup")
        made = back_up(hub.home, log, folder, datetime.now(UTC), lambda done, total: shown.show(label, done, total))
    told = _told(made, before, folder, time.monotonic() - began)
    if json:
        answer(told)
        return
    said = text(
        "  ✔ {folder}：事件 {events} 条（新增 {new}），{mb} MB，{seconds} 秒",
        "  ✔ {folder}: {events} events ({new} new), {mb} MB, {seconds} s",
    )
    say(said.format_map(told))
    say(text("    其中有 .env 中的密钥：请像它一样保管", "    it holds the secrets of .env: keep it as carefully"))


def _records(folder: Path) -> int:
    from hub.ops.backups.manifest import read

    found = read(folder)
    return found.records if found is not None else 0


def _told(made: BackupManifest, before: int, folder: Path, seconds: float) -> dict[str, Any]:
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
class InTheWay:
    """What a home has already: events, how many of them the backup lacks, and whether they lie in the log and in the ledger."""

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
    """Check every file, then fill log and ledger of a hub that is stopped; its boards and its state follow from the log."""
    from hub.cli.repair_losses import empty_boards
    from hub.cli.running_hub import RunningHub, opened_log
    from hub.config.home import RULES_TOLD
    from hub.ops.backups import restoring

    began = time.monotonic()
    with bar(json) as shown:
        found = restoring.verified(folder, shown.show)
        differing = restoring.put_home_back(found, folder, home)
        hub = RunningHub.of(home)
        if hub.runs:
            raise FatalError("HUB-E2118")
        aside = _make_room(hub, found, replace=replace)
        with opened_log(hub) as log:
            events = restoring.restore(found, folder, log, hub.home.ledger_url, datetime.now(UTC), shown.show)
            (hub.home.data / RULES_TOLD).unlink(missing_ok=True)
            _forget_folds(hub, log)
            empty_boards(hub, log)
    told = {
        "ok": True, "events": events, "of": found.finished, "seconds": round(time.monotonic() - began, 1),
        "set_aside": aside, "home_differs": differing,
    }  # fmt: skip
    if json:
        answer(told)
        return
    for line in _lines(told):
        say(line)


def _lines(told: dict[str, Any]) -> Iterator[str]:
    for name in told["set_aside"]:
        yield text("  ✔ 已搁到一边：{}", "  ✔ set aside: {}").format(name)
    for name in told["home_differs"]:
        yield text("  ! {} 与备份中的不同，未改动", "  ! {} differs from the backup, and was left as it is").format(
            name
        )
    yield text(
        "  ✔ 已恢复到 {of}：事件 {events} 条，{seconds} 秒；启动：hub up",
        "  ✔ restored to {of}: {events} events, {seconds} s; start it: hub up",
    ).format_map(told)


def _forget_folds(hub: RunningHub, log: EventLog) -> None:
    """On a cluster, what the processor knew may have outlived the log."""
    from hub.cli.repair_losses import client_of
    from hub.ops.repair import folded_places
    from hub.processor.state_reset import forget

    if folded_places(log):
        forget(client_of(log), hub.home.config.kafka.replication)


def _make_room(hub: RunningHub, found: BackupManifest, *, replace: bool) -> list[str]:
    """Set log and ledger aside that hold anything; raises FatalError HUB-E5204 without leave to."""
    from hub.cli.running_hub import set_log_aside
    from hub.ledger.database import set_aside_whole

    there = _in_the_way(hub, found)
    if not there.log and not there.ledger:
        return []
    if not replace:
        raise FatalError("HUB-E5204", events=there.events, since=there.since)
    _refuse_what_stays(hub, found, there)
    aside = [str(set_log_aside(hub, "replaced"))] if there.log else []
    return [*aside, str(set_aside_whole(hub.home.ledger_url, "replaced"))] if there.ledger else aside


def _refuse_what_stays(hub: RunningHub, found: BackupManifest, there: InTheWay) -> None:
    """Raise FatalError for what can't be set aside or can't be filled: before the first of them is moved."""
    from hub.ledger.database import is_a_file, shown_url
    from hub.ops.backups.ledger_copy import refuse_other_kind

    if found.ledger is not None:
        refuse_other_kind(found.ledger, hub.home.ledger_url)
    if there.log and not hub.home.config.kafka.embedded:
        raise FatalError("HUB-E5207", what=hub.bootstrap)
    if there.ledger and not is_a_file(hub.home.ledger_url):
        raise FatalError("HUB-E5207", what=shown_url(hub.home.ledger_url))


def _in_the_way(hub: RunningHub, found: BackupManifest) -> InTheWay:
    from hub.cli.running_hub import opened_log
    from hub.ledger import outbox
    from hub.ledger.ledger import look_at
    from hub.log.outbox_in_log import latest_outbox, tails
    from schemas.topics import EVENTS

    with look_at(hub.home.ledger_url, "outbox") as conn:
        accepted = outbox.counts(conn)["accepted"] if conn is not None else 0
        given = outbox.sequence_ends(conn) if conn is not None else {}
    records, there = 0, dict[int, int]()
    if not hub.home.config.kafka.embedded or (hub.home.data / "kafka" / "log").is_dir():
        with opened_log(hub) as log:
            records = sum(log.ends(EVENTS.name).values())
            there = tails(log, latest_outbox(log) or "", given) if records else {}
    kept = found.ledger.given if found.ledger is not None else {}
    newest = {p: max(there.get(p, 0), given.get(p, 0)) for p in there.keys() | given.keys()}
    since = sum(max(0, last - kept.get(p, 0)) for p, last in newest.items())
    return InTheWay(max(records, accepted), since, records > 0, accepted > 0)
