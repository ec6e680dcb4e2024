"""The first part of `hub repair`, before it looks for gaps: makes log, ledger, state and boards consistent again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hub.cli.terminal import progress_bars, text
from hub.errors import FatalError
from hub.home import RULES_ANNOUNCED

if TYPE_CHECKING:
    from hub.cli.running_hub import RunningHub
    from hub.log.event_log import EventLog
    from hub.ops.backups.filling import Filling
    from hub.ops.recovery import RecoveryPlan, Survey


@dataclass(frozen=True)
class StoreRecovery:
    """The inconsistencies between the stores, and what was done about them."""

    log: str
    """The log compared with the ledger: same, moved, behind, lost; `new` without a ledger."""
    plan: RecoveryPlan
    published: int = 0
    set_aside: list[str] = field(default_factory=list)
    """What was renamed to make room for another."""

    def as_value(self) -> dict[str, Any]:
        """For `--json`."""
        return {"log": self.log, **asdict(self.plan), "published": self.published, "set_aside": self.set_aside}


def recover_stores(
    hub: RunningHub,
    log: EventLog,
    by: str,
    reason: str | None,
    *,
    dry_run: bool,
    quiet: bool,
    backup: Path | None = None,
) -> StoreRecovery:
    """Compare the stores and, unless it is a dry run, restore what can be restored.

    Trimmed events come from a `backup`, or from the last one. Raises FatalError for what only a person can decide: lost events
    without a `reason` to give them up, and stores of two hubs. Nothing is changed then.
    """
    from hub.ledger.ledger import read_snapshot
    from hub.ops.recovery import plan, survey

    found = survey(log, hub.home.ledger_url, hub.home.boards_url)
    kind = found.match.kind if found.match is not None else "new"
    with read_snapshot(hub.home.ledger_url, "outbox") as conn:
        wanted = plan(log, conn, found, running=hub.runs)
    if dry_run or (wanted.is_empty and kind != "foreign"):
        return StoreRecovery(kind, wanted)
    _refuse(hub, found, wanted, reason)
    filling = _filling(hub, log, backup, reason) if wanted.publish else None
    return StoreRecovery(kind, wanted, _execute(hub, log, wanted, by, reason, bar_factory(quiet), filling))


def _filling(hub: RunningHub, log: EventLog, backup: Path | None, reason: str | None) -> Filling | None:
    """The backup's events that log and ledger both lack; None when nothing is lacking, or it was given up."""
    from hub.ledger import retention
    from hub.ops.backups.filling import filling
    from hub.ops.recovery import lacking_error, trimmed_and_lacking

    with hub.ledger() as ledger, ledger.reading() as conn:
        lacking, last = trimmed_and_lacking(log, conn), retention.last_backup(conn)
        error = lacking_error(conn, lacking)
    if error is None:
        return None
    folder = backup or (Path(last.folder) if last is not None else None)
    above, floors = {p: last for p, (last, _) in lacking.items()}, {p: floor for p, (_, floor) in lacking.items()}
    found = filling(folder, ledger.outbox_id, above, floors) if folder is not None else None
    if found is None and reason is None:
        raise error
    return found


def _refuse(hub: RunningHub, found: Survey, wanted: RecoveryPlan, reason: str | None) -> None:
    error = found.match.error() if found.match is not None and found.match.kind == "foreign" else None
    if error is not None:
        raise error
    if hub.runs:
        raise FatalError("HUB-E2118")
    if wanted.gone and reason is None:
        raise FatalError("HUB-E2119", events=sum(wanted.gone.values()))


BarFactory = Callable[[], Any]


def bar_factory(quiet: bool) -> BarFactory:
    """Opens progress bars when they are needed."""
    return lambda: progress_bars(quiet)


def _execute(
    hub: RunningHub,
    log: EventLog,
    wanted: RecoveryPlan,
    by: str,
    reason: str | None,
    shown: BarFactory,
    filling: Filling | None,
) -> int:
    """Carry out the plan; every step may be interrupted and repeated. Returns how many events were published."""
    from hub.ledger.outbox import record
    from hub.ops.recovery import adopt_log, prepare, publish
    from hub.processor.state_reset import forget

    now = datetime.now(UTC)
    if wanted.publish or wanted.gone:
        (hub.home.data / RULES_ANNOUNCED).unlink(missing_ok=True)
    with hub.ledger() as ledger:
        ledger.writer.run(lambda conn: prepare(conn, log, wanted, now))
        if wanted.boards:
            empty_boards(hub, log)
        if wanted.state:
            forget(client_of(log), hub.home.config.kafka.replication)
        with shown() as bar_:
            label = text("重新发布", "publishing again")
            show, give_up = lambda done, total: bar_.show(label, done, total), reason is not None
            published = publish(log, ledger, show, filling, give_up=give_up) if wanted.publish else 0
        if wanted.gone:
            events = [_given_up(*each, log, ledger.outbox_id, by, reason, now) for each in wanted.gone.items()]
            ledger.writer.run(lambda conn: record(conn, events, "hub"))
        ledger.writer.run(lambda conn: adopt_log(conn, log))
    return published


def _given_up(
    partition: int, count: int, log: EventLog, outbox: str, by: str, reason: str | None, now: datetime
) -> Any:
    """The event that records how many events of a partition were given up."""
    from hub.log.sequence_gaps import repaired
    from hub.log.sequences import Loss
    from schemas.topics import EVENTS

    end = log.ends(EVENTS.name)[partition]
    loss = Loss("gone", partition, end, outbox, end, end)
    return repaired(loss, now, published=0, accepted=count, reason=reason, by=by)


def client_of(log: EventLog) -> Any:
    """librdkafka's settings of a log on a broker."""
    from hub.log.kafka_log import KafkaLog

    assert isinstance(log, KafkaLog)  # commands use no other log
    return log.client


def empty_boards(hub: RunningHub, log: EventLog) -> None:
    """Have the boards folded from the log again at their next start; raises the error that their program reports."""
    from hub.cli.other_programs import ask_of, error_of

    for message in ask_of(
        hub.home, str(client_of(log)["bootstrap.servers"]), "hub.projector.rebuilding", "--begin-anew"
    ):
        if "error" in message:
            raise error_of(message["error"])


def set_aside_other_store(hub: RunningHub, keep: Literal["log", "ledger"]) -> list[str]:
    """Set aside the other store than `keep`, when log and ledger are of two hubs; returns the new names of what was renamed."""
    from hub.cli.running_hub import opened_log
    from hub.ops.recovery import survey

    if hub.runs:
        raise FatalError("HUB-E2118")
    with opened_log(hub) as log:
        found = survey(log, hub.home.ledger_url, hub.home.boards_url).match
    if found is None or found.kind != "foreign":
        return []
    if keep == "log":
        return [_set_ledger_aside(hub)]
    return [_set_log_aside(hub)]


def _set_ledger_aside(hub: RunningHub) -> str:
    from hub.ledger.database import set_aside_whole, shown_url

    aside = set_aside_whole(hub.home.ledger_url, "foreign")
    if aside is None:
        raise FatalError("HUB-E5010", url=shown_url(hub.home.ledger_url))
    return str(aside)


def _set_log_aside(hub: RunningHub) -> str:
    from hub.cli.running_hub import set_log_aside

    aside = set_log_aside(hub, "foreign")
    if aside is None:
        raise FatalError("HUB-E2120", bootstrap=hub.bootstrap)
    return aside


def lines(done: StoreRecovery, *, dry_run: bool) -> Iterator[str]:
    """The answer for people."""
    for name in done.set_aside:
        yield text("  ✔ 已搁到一边：{}", "  ✔ set aside: {}").format(name)
    plan = done.plan
    if plan.publish:
        yield text("  … 日志缺少台账已发布的 {} 条", "  … the log lacks {} events that the ledger has").format(
            plan.publish
        )
    for partition, count in plan.gone.items():
        yield text(
            "  ✘ 分区 {}：{} 条处理过的事件，日志和台账里都没有",
            "  ✘ partition {}: {} folded events are neither in the log nor in the ledger",
        ).format(partition, count)
    for is_wanted, zh, en in (
        (plan.state, "处理状态从日志重算", "the processor's state is rebuilt from the log"),
        (plan.boards, "看板从日志重建", "the boards are rebuilt from the log"),
        (plan.requests, "指令从头再读，已知的略过", "requests are read from their first one, known ones passed over"),
        (plan.doubt, "旧事件要求的指令先核对再执行", "what old events ask for is looked up before it is done"),
    ):
        if is_wanted:
            yield f"  … {text(zh, en)}"
    if done.published:
        yield text("  ✔ 从台账重新发布 {} 条", "  ✔ {} events published again from the ledger").format(done.published)
    if not plan.is_empty and not dry_run:
        yield text("  ✔ 已修复；启动：hub up", "  ✔ repaired; start it: hub up")
