"""`hub repair`: republishes missing events from the outbox, or accepts them as lost; and resets the processor's state."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hub.cli.terminal import HERE, HomeOption, JsonOption, answer, say, text
from hub.errors import FatalError, RejectedError

if TYPE_CHECKING:
    from hub.cli.running_hub import RunningHub
    from hub.home import Home
    from hub.log.event_log import EventLog
    from hub.ops.repair import Findings, Gap, RepairResult

Keep = Literal["log", "ledger"]
MAX_EVENTS_SHOWN = 20
"""How many missing events are listed for one gap."""

repairing = typer.Typer(
    invoke_without_command=True,
    help="修复：补发缺失的事件，重建处理状态 · publish again what the log lacks; rebuild the processor's state",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(repairing, name="repair")


@repairing.callback()
def repair(
    context: typer.Context,
    home: HomeOption = HERE,
    json: JsonOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="只看，不动 · only show what is missing")] = False,
    keep: Annotated[
        Keep | None,
        typer.Option(
            "--keep", help="日志与台账不是一家时，以谁为准 · of a log and a ledger of two hubs, go on with this one"
        ),
    ] = None,
    backup: Annotated[
        Path | None,
        typer.Option(
            "--backup",
            metavar="DIR",
            help="台账已精简的，从这个备份取回 · take what the ledger has trimmed from this backup",
            show_default="上次备份 · the last one",
        ),
    ] = None,
    accept_gap: Annotated[
        bool, typer.Option("--accept-gap", help="找不回的也算了结 · give up what the outbox does not have")
    ] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="为何放弃 · why it may be given up")] = None,
    by: Annotated[
        str | None, typer.Option("--by", help="谁 · who does it", show_default="系统用户 · the system's user")
    ] = None,
) -> None:
    """Restore what log, ledger and boards lack of each other, also while the hub is stopped.

    Exit 1 when something stays missing.
    """
    if context.invoked_subcommand is not None:
        return
    if accept_gap and not (reason or "").strip():
        raise typer.BadParameter(text("放弃要写明原因", "say why it may be given up"), param_hint="--reason")
    from hub.cli import repair_losses
    from hub.cli.running_hub import RunningHub, opened_log

    hub, who, why = RunningHub.of(home), by or getpass.getuser(), reason if accept_gap else None
    aside = repair_losses.set_aside_other_store(hub, keep) if keep is not None and not dry_run else []
    with opened_log(hub) as log:
        first = repair_losses.recover_stores(hub, log, who, why, dry_run=dry_run, quiet=json, backup=backup)
        first = replace(first, set_aside=aside)
        if not json:
            for line in repair_losses.lines(first, dry_run=dry_run):
                say(line)
        found, done = repair_gaps(hub, log, who, why, dry_run=dry_run, backup=backup)
    if json:
        answer({**as_value(found, done, dry_run=dry_run), "stores": first.as_value()})
    else:
        for line in lines(found, done, dry_run=dry_run):
            say(line)
    raise_for_unrepaired(done)


def repair_gaps(
    hub: RunningHub, log: EventLog, by: str, reason: str | None, *, dry_run: bool, backup: Path | None = None
) -> tuple[Findings, RepairResult]:
    """Find the gaps and, unless it is a dry run, repair them. Trimmed events come from a `backup`, or from the last one."""
    from hub.ledger import retention
    from hub.ops.recovery import lacking_error
    from hub.ops.repair import RepairResult, apply_repair, find_gaps, with_backup

    with hub.ledger() as ledger:
        with ledger.reading() as conn:
            found, last = find_gaps(log, conn, ledger.outbox_id), retention.last_backup(conn)
            error = lacking_error(conn, found.lacking)
        if error is not None and not dry_run:
            raise error
        folder = backup or (Path(last.folder) if last is not None else None)
        if folder is not None:
            found = with_backup(found, folder, ledger.outbox_id)
        if dry_run:
            return found, RepairResult(left=[gap for gap in found.gaps if gap.lost or gap.loss.kind == "replaced"])
        done = ledger.writer.run(lambda conn: apply_repair(conn, found, datetime.now(UTC), by, reason))
        return found, replace(done, backup=str(folder or ""))


def as_value(found: Findings, done: RepairResult, *, dry_run: bool) -> dict[str, Any]:
    """The answer for machines."""
    return {
        "ok": not done.left,
        "dry_run": dry_run,
        "gaps": [gap.as_value() for gap in found.gaps],
        "tails": {str(partition): given - last for partition, (last, given) in found.tails.items()},
        "published": done.published,
        "accepted": done.accepted,
        "left": len(done.left),
    }


def lines(found: Findings, done: RepairResult, *, dry_run: bool) -> Iterator[str]:
    """The answer for people."""
    for gap in found.gaps:
        yield from _gap(gap)
    for partition, (last, given) in found.tails.items():
        facts = {"partition": partition, "last": last, "given": given}
        yield text(
            "  … 分区 {partition} 末尾：日志到序号 {last}，发件箱到 {given}",
            "  … end of partition {partition}: the log has sequence {last}, the outbox {given}",
        ).format_map(facts)
    if not found.gaps and not done.published:
        yield text("  ✔ 日志没有缺口", "  ✔ the log has no gap")
    elif not dry_run:
        yield text(
            "  ✔ 重新发布 {published} 条，确认放弃 {accepted} 条；停下的分区几秒内继续",
            "  ✔ {published} published again, {accepted} given up; partitions that stopped go on within seconds",
        ).format(published=done.published, accepted=done.accepted)


def _gap(gap: Gap) -> Iterator[str]:
    error = gap.error()
    facts = {"code": error.code, "message": error.message(), "missing": gap.missing, "there": len(gap.rows)}
    yield "  ✘ {code} {message}".format_map(facts)
    if gap.foreign:
        return
    yield text(
        "      缺少 {missing} 条，发件箱中有 {there} 条", "      {missing} missing, {there} in the outbox"
    ).format_map(facts)
    if gap.trimmed:
        yield text(
            "      {} 条台账已精简，备份中有 {} 条", "      {} trimmed in the ledger, {} of the missing in the backup"
        ).format(gap.trimmed, len(gap.in_backup))
    for row in gap.rows[:MAX_EVENTS_SHOWN]:
        yield f"      {row.sequence}  {row.type}  {row.subject}"
    if len(gap.rows) > MAX_EVENTS_SHOWN:
        yield f"      … {len(gap.rows) - MAX_EVENTS_SHOWN}"


def raise_for_unrepaired(done: RepairResult) -> None:
    """Raise the error of the gaps that only a person can close."""
    if not done.left:
        return
    replaced = next((gap.loss for gap in done.left if gap.loss.kind == "replaced"), None)
    if replaced is not None:
        raise replaced.error()
    missing, trimmed = sum(gap.lost for gap in done.left), sum(gap.trimmed - len(gap.in_backup) for gap in done.left)
    if trimmed > 0:
        raise RejectedError("HUB-E2123", missing=missing, trimmed=trimmed, backup=done.backup or "—")
    raise RejectedError("HUB-E2113", missing=missing)


@repairing.command("state")
def state(home: HomeOption = HERE, json: JsonOption = False) -> None:
    """重建处理状态：停机后清空，下次启动时从日志重算 · clear the processor's state; the next start folds the log again.

    Commands that it emits again keep their ids, so nothing is done twice.
    """
    from hub.cli.running_hub import RunningHub

    hub = RunningHub.of(home)
    if hub.runs:
        raise FatalError("HUB-E2114")
    result = forget_state(hub.home)
    if json:
        answer(result)
    else:
        say(text("  ✔ 处理状态已清空；hub up 会从日志重算", "  ✔ the state is cleared; hub up folds the log again"))


def forget_state(home: Home) -> dict[str, Any]:
    """Recreate the state topic and delete the processor's offsets; starts the embedded broker for that."""
    from hub.ops.supervisor import Supervisor
    from hub.processor.state_reset import forget

    supervisor = Supervisor(home, _ignore_progress, only=())
    with supervisor.run.claim():
        try:
            supervisor.start()
            forget(home.kafka_client(supervisor.bootstrap), home.config.kafka.replication)
            return {"ok": True, "settled": _settle_replaced(home)}
        finally:
            supervisor.stop()


def _ignore_progress(_what: str, _facts: Mapping[str, Any]) -> None:
    """Report nothing: the broker is started only for this command."""


def _settle_replaced(home: Home) -> int:
    """Record that partitions which had halted before another log are folded again; returns how many."""
    from hub.ledger import outbox
    from hub.ledger.ledger import Ledger
    from hub.ledger.positions import halted
    from hub.log.sequence_gaps import repaired
    from hub.log.sequences import Loss

    ledger = Ledger(home.ledger_url)
    try:
        with ledger.reading() as conn:
            fields = Loss._fields
            losses = [
                Loss(**{name: halt[name] for name in fields}) for halt in halted(conn) if halt["kind"] == "replaced"
            ]
        now, by = datetime.now(UTC), getpass.getuser()
        events = [repaired(loss, now, published=0, accepted=0, reason="hub repair state", by=by) for loss in losses]
        return ledger.writer.run(lambda conn: outbox.record(conn, events, "hub"))
    finally:
        ledger.close()
