"""`hub status`: programs, backlogs, parked work, connectors, boards and the processor's lag. Works while the hub is down, too."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli import ledger_history
from hub.cli.terminal import HERE, HomeOption, JsonOption, answer, clear, command_line, runnable, say, speech, text
from hub.errors import FatalError, HubError, RetryableError

BROKER_TIMEOUT_S = 5.0
"""Seconds to wait for the broker."""


@dataclass(frozen=True)
class Progress:
    """The processor's committed offsets, `done`, and the log's end offsets, `ends`, by partition."""

    done: Mapping[int, int]
    ends: Mapping[int, int]

    @property
    def lag(self) -> int:
        """Events that the processor has not folded yet."""
        return sum(max(0, end - self.done.get(partition, 0)) for partition, end in self.ends.items())


def progress(client: Mapping[str, Any]) -> Progress:
    """The processor's progress. Joins no group and commits nothing. Raises RetryableError while the broker is unreachable."""
    from confluent_kafka import Consumer, KafkaException, TopicPartition

    from hub.log.kafka_log import broker_unavailable
    from hub.processor import GROUP
    from schemas.topics import EVENTS, PARTITIONS

    consumer = Consumer({**client, "group.id": GROUP, "enable.auto.commit": False, "log_level": 0})
    partitions = [TopicPartition(EVENTS.name, partition) for partition in range(PARTITIONS)]
    try:
        marks = {tp.partition: consumer.get_watermark_offsets(tp, timeout=BROKER_TIMEOUT_S) for tp in partitions}
        committed = {tp.partition: tp.offset for tp in consumer.committed(partitions, timeout=BROKER_TIMEOUT_S)}
    except KafkaException as error:
        raise broker_unavailable(error) from error
    finally:
        consumer.close()
    if any(mark is None for mark in marks.values()):
        raise RetryableError("HUB-E2104", reason="no watermark")
    starts = {partition: low for partition, (low, _) in marks.items()}
    done = {partition: offset if offset >= 0 else starts[partition] for partition, offset in committed.items()}
    return Progress(done, {partition: high for partition, (_, high) in marks.items()})


if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.cli.running_hub import RunningHub
    from hub.health.status import HealthStatus

WATCH_INTERVAL_S = 2.0
"""Seconds between two refreshes of `--watch`."""
CLOCK_LEAD_WARNING_S = 60.0
"""Seconds by which a source's clock may be ahead before `status` warns."""
NO_COUNTS = {"accepted": 0, "held": 0, "unpublished": 0}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status", help="现在怎样：程序、积压、停放、看板 · the state now: programs, lag, parked work, boards")(
        status
    )


def status(
    home: HomeOption = HERE,
    json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="每两秒刷新，直到 Ctrl-C · again every two seconds")] = False,
) -> None:
    """Show the state of the hub. Exit 0: all is well; 1: a part is stuck, or the hub does not run; 4, 5, 6 as for every command."""
    from hub.cli.health_summary import exit_of, health_of
    from hub.cli.running_hub import RunningHub

    while True:
        hub = RunningHub.of(home)
        health = health_of(hub)
        report = look(hub, health)
        if watch and not json:
            clear()
        if json:
            answer(report)
        else:
            for line in lines(report):
                say(line)
        if not watch:
            raise typer.Exit(exit_of(health))
        time.sleep(WATCH_INTERVAL_S)


def look(hub: RunningHub, health: HealthStatus) -> dict[str, Any]:
    """Everything that `status` shows. A part of an unreachable store is None, and `away` holds the reason."""
    from hub.health.looking import board_places
    from hub.health.words import status_value

    report: dict[str, Any] = {
        "home": str(hub.home.path),
        "name": hub.home.name,
        "health": status_value(health, speech.language),
    }
    report |= {**_programs(hub, health), **_broker(hub, health), **_ledger(hub, health)}
    ends = report.pop("ends")
    try:
        boards = board_places(hub.home.boards_url)
    except HubError as error:
        return {**report, "boards": None, "away": [*report["away"], error.message()]}
    return {
        **report,
        "boards": {
            name: {"behind": place.behind(ends) if ends is not None else None, "fresh_at": place.fresh_at or None}
            for name, place in boards.items()
        },
    }


def _programs(hub: RunningHub, health: HealthStatus) -> dict[str, Any]:
    return {
        "running": health.facts.running is not False,
        "pid": hub.notes.get("pid"),
        "url": hub.notes.get("web"),
        "programs": {
            program.name: {"pid": program.pid, "state": program.state, "restarts": program.restarts}
            for program in health.facts.programs
        },
    }


def _broker(hub: RunningHub, health: HealthStatus) -> dict[str, Any]:
    nothing: dict[str, Any] = {"kafka": None, "processor": None, "ends": None}
    if not hub.runs and hub.home.config.kafka.embedded:
        return {**nothing, "away": []}
    if any(gone.store == "broker" for gone in health.facts.away):
        return {**nothing, "away": [gone.reasons[speech.language] for gone in health.facts.away]}
    try:
        bootstrap, found = hub.bootstrap, progress(hub.client)
    except HubError as error:
        return {**nothing, "away": [error.message(speech.language)]}
    ends = sum(found.ends.values())
    return {"kafka": bootstrap, "processor": {"events": ends, "lag": found.lag}, "ends": found.ends, "away": []}


def _ledger(hub: RunningHub, health: HealthStatus) -> dict[str, Any]:
    from hub.cli.parked_refused import recent
    from hub.ledger import commands, conflicts, outbox, parked
    from hub.ledger.positions import halted

    states = instance_states(hub.home.config.connectors, health)
    connected = {
        name: {"use": entry.use, "state": states[name], "streams": {}}
        for name, entry in hub.home.config.connectors.items()
    }
    nothing = {
        **NO_COUNTS,
        "commands": {},
        "parked": {},
        "refused": [],
        "conflicts": {},
        "halted": [],
        "history": ledger_history.NO_HISTORY,
        "connectors": connected,
    }
    try:
        with hub.look() as conn:
            if conn is None:
                return nothing
            streams = _streams(hub, conn, health)
            return {
                **outbox.counts(conn),
                "commands": {state.lower(): number for state, number in sorted(commands.states(conn).items())},
                "parked": parked.count(conn),
                "refused": recent(conn),
                "conflicts": conflicts.counts(conn),
                "halted": halted(conn),
                "history": ledger_history.history_report(hub.home, conn),
                "connectors": {name: {**each, "streams": streams.get(name, {})} for name, each in connected.items()},
            }
    except HubError:
        return nothing  # `health` reports that the ledger is unreachable


def _streams(hub: RunningHub, conn: Connection, health: HealthStatus) -> dict[str, dict[str, Any]]:
    """Instance → stream → its cursor, the seconds since a page of it was last read to its end, and whether that is too long."""
    from hub.health.status import is_late
    from hub.health.watch import limits_of
    from hub.ledger import cursors
    from schemas.envelope import parse_time

    found: dict[str, dict[str, Any]] = {}
    limits, intervals = limits_of(hub.home), {each.instance: each.interval for each in health.facts.streams}
    ahead = cursors.ahead(conn)
    for row in cursors.all_cursors(conn):
        age = round((health.facts.at - parse_time(row.moved_at)).total_seconds(), 1)
        late = is_late(age, intervals.get(row.instance, 0.0), limits)
        stream = {
            "cursor": row.cursor[:200],
            "age_seconds": max(0.0, age),
            "late": late,
            "ahead_seconds": ahead.get((row.instance, row.stream), 0.0),
        }
        found.setdefault(row.instance, {})[row.stream] = stream
    return found


def instance_states(names: Iterable[str], health: HealthStatus) -> dict[str, str]:
    """State by instance: `down` without a running connectors program, `paused` or `silent` by its last status event, `failing`,
    `late` when a stream was not read for too long, `busy`, else `ok`."""
    dead = health.facts.running is False or any(
        program.name == "connectors" and program.state in ("down", "frozen") for program in health.facts.programs
    )
    found = {name: health.facts.instances.get(name, "ok") for name in names}
    kinds = {"system": "failing", "calls": "failing", "stream": "late", "busy": "busy"}
    for trouble in reversed(health.troubles):
        name = str(trouble.facts.get("instance"))
        if trouble.kind in kinds and found.get(name) == "ok":
            found[name] = kinds[trouble.kind]
    return {name: "down" if dead and state not in ("paused", "silent") else state for name, state in found.items()}


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The answer for people."""
    yield from _first(report)
    for name, program in report["programs"].items():
        mark = {"ready": "✔", "starting": "…"}.get(program["state"], "✘")
        again = (
            text("，重启 {} 次", ", started again {} times").format(program["restarts"]) if program["restarts"] else ""
        )
        yield f"    {mark} {name}  {text(*PROGRAM_STATES[program['state']])}{again}"
    if report["processor"] is not None:
        facts = {**report["processor"], "kafka": report["kafka"]}
        yield text(
            "  日志 {kafka}  事件 {events}  待处理 {lag}", "  log {kafka}  events {events}  to fold {lag}"
        ).format_map(facts)
    yield text(
        "  收下 {accepted}  等待归属 {held}  未发布 {unpublished}",
        "  accepted {accepted}  held {held}  unpublished {unpublished}",
    ).format_map(report)
    yield from ledger_history.lines({**report["history"], "running": report["running"]})
    yield from _work(report)
    yield from (f"  ✘ {reason}" for reason in report["away"])


def _first(report: Mapping[str, Any]) -> Iterator[str]:
    """The health in one line, and the hub's address."""
    health = report["health"]
    if not report["running"]:
        yield text("  ○ {name} 没有在运行 → hub up", "  ○ {name} is not running → hub up").format_map(report)
    else:
        mark = "✘" if health["status"] != "ok" else "!" if health["troubles"] else "✔"
        where = f"  {report['url']}" if report["url"] else ""
        yield f"  {mark} {report['name']}{where}  {health['sentence']}"
        yield text("    进程 {pid}", "    process {pid}").format_map(report)
    yield from (f"    ✘ {trouble['sentence']}" for trouble in health["troubles"][1:])


PROGRAM_STATES = {
    "ready": ("就绪", "ready"),
    "starting": ("正在启动", "starting"),
    "down": ("已停", "down"),
    "frozen": ("停住不动", "not responding"),
}


def _work(report: Mapping[str, Any]) -> Iterator[str]:
    for halt in report["halted"]:
        error = FatalError(halt["code"], **halt)
        yield f"  ✘ {error.code} {error.message()}"
        yield f"    → {runnable(error.fix())}"
    if report["commands"]:
        counted = "  ".join(f"{state} {number}" for state, number in report["commands"].items())
        yield f"  {text('命令', 'commands')}  {counted}"
    if report["parked"]:
        counted = "  ".join(f"{kind} {number}" for kind, number in report["parked"].items())
        yield f"  ✘ {text('停放', 'parked')}  {counted}  → {runnable('hub parked list')}"
    if report["refused"]:
        from hub.cli.parked_refused import count_lines

        yield from count_lines(report["refused"])
        yield f"    → {command_line('parked', '--refused')}"
    if report["conflicts"]:
        counted = "  ".join(f"{name} {number}" for name, number in report["conflicts"].items())
        repeated = text("同一版本又来了别的内容，以先到的为准", "delivered again with other content, the first counts")
        yield f"  ! {repeated}  {counted}"
        finer = text("把 version 映射得更细，例如修改时间到秒；逐件：", "map a finer version; each:")
        yield f"    → {finer} {command_line('events', 'conflicts')}"
    for name, connector in report["connectors"].items():
        state = connector.get("state", "ok")
        streams = "  ".join(
            f"{'✘ ' if each['late'] else ''}{stream} {_ago(each['age_seconds'])}"
            for stream, each in connector.get("streams", {}).items()
        )
        ahead = max((each["ahead_seconds"] for each in connector.get("streams", {}).values()), default=0.0)
        mark = {"ok": "✔", "busy": "!", "down": "○"}.get(state, "✘")
        yield f"    {mark} {name} ({connector['use']})  {text(*CONNECTOR_STATES.get(state, (state, state)))}  {streams}".rstrip()
        if ahead > CLOCK_LEAD_WARNING_S:
            template = text("{} 的时钟比接力快 {:.0f} 分钟", "the clock of {} is {:.0f} minutes ahead of the hub's")
            yield f"      ! {template.format(name, ahead / 60)}"
    for name, board in (report["boards"] or {}).items():
        yield f"    ▤ {name}  {_behind(board['behind'], report['running'])}"


CONNECTOR_STATES = {
    "ok": ("正常", "ok"),
    "busy": ("忙", "busy"),
    "down": ("未运行", "not running"),
    "failing": ("没有办成", "fails"),
    "late": ("停滞", "stalled"),
    "paused": ("已暂停", "paused"),
    "silent": ("长时间无消息", "silent for too long"),
}


def _ago(seconds: float) -> str:
    if seconds < 120:
        return text("{:.0f} 秒前", "{:.0f} s ago").format(seconds)
    return text("{:.0f} 分钟前", "{:.0f} min ago").format(seconds / 60)


def _behind(records: int | None, running: bool) -> str:
    if records is None:
        return text("（未运行）", "(not running)") if not running else text("（不知落后多少）", "(lag unknown)")
    return text("与日志同步", "up with the log") if records == 0 else text("落后 {} 条", "{} behind").format(records)
