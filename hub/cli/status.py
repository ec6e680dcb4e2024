"""`hub status`: what runs, what waits, and how far each part is. Works while the hub is down, too."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.terminal import HERE, HomeOption, JsonOption, answer, clear, say, text
from hub.errors import FatalError, HubError

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from hub.cli.running_hub import RunningHub

EVERY = 2.0
"""Seconds between two looks of `--watch`."""
NOTHING = {"accepted": 0, "held": 0, "unpublished": 0}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status", help="现在怎样：程序、积压、停放、看板 · how it stands: programs, lag, parked work, boards")(
        status
    )


def status(
    home: HomeOption = HERE,
    json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="每两秒刷新，直到 Ctrl-C · again every two seconds")] = False,
) -> None:
    """Show how the hub stands. Exit 0 whether it runs or not; `hub doctor` and `hub audit` judge."""
    while True:
        told = look(home)
        if watch and not json:
            clear()
        if json:
            answer(told)
        else:
            for line in lines(told):
                say(line)
        if not watch:
            return
        time.sleep(EVERY)


def look(home: Path) -> dict[str, Any]:
    """Everything that `status` shows. What is away shows as None, with the reason in `away`."""
    from hub.cli.board_places import board_places
    from hub.cli.running_hub import RunningHub

    hub = RunningHub.of(home)
    told = {"home": str(hub.home.path), "name": hub.home.name, **_programs(hub), **_broker(hub), **_ledger(hub)}
    ends = told.pop("ends")
    try:
        boards = board_places(hub.home.boards_url)
    except HubError as error:
        return {**told, "boards": None, "away": [*told["away"], error.message()]}
    return {
        **told,
        "boards": {
            name: {"behind": place.behind(ends) if ends is not None else None, "fresh_at": place.fresh_at or None}
            for name, place in boards.items()
        },
    }


def _programs(hub: RunningHub) -> dict[str, Any]:
    from hub.ready import is_ready

    notes = hub.notes
    restarts = notes.get("restarts", {})
    return {
        "running": hub.runs,
        "pid": notes.get("pid"),
        "url": notes.get("web"),
        "programs": {
            name: {
                "pid": pid,
                "state": _state(name, pid, is_ready(hub.home.data, name, pid)),
                "restarts": restarts.get(name, 0),
            }
            for name, pid in notes.get("programs", {}).items()
        },
    }


def _state(name: str, pid: int | None, ready: bool) -> str:
    if pid is None:
        return "down"
    return "ready" if ready or name == "broker" else "starting"


def _broker(hub: RunningHub) -> dict[str, Any]:
    from hub.cli.processor_lag import progress

    if not hub.runs and hub.home.config.kafka.embedded:
        return {"kafka": None, "processor": None, "ends": None, "away": []}
    try:
        bootstrap, found = hub.bootstrap, progress(hub.client)
    except HubError as error:
        return {"kafka": None, "processor": None, "ends": None, "away": [error.message()]}
    ends = sum(found.ends.values())
    return {"kafka": bootstrap, "processor": {"events": ends, "lag": found.lag}, "ends": found.ends, "away": []}


def _ledger(hub: RunningHub) -> dict[str, Any]:
    from hub.ledger import commands, outbox, parked
    from hub.ledger.halts import halted

    connected = {name: {"use": entry.use} for name, entry in hub.home.config.connectors.items()}
    with hub.look() as conn:
        if conn is None:
            return {**NOTHING, "commands": {}, "parked": {}, "halted": [], "connectors": connected}
        streams, states = _streams(conn), {name: connector_state(conn, name) for name in connected}
        return {
            **outbox.counts(conn),
            "commands": {state.lower(): number for state, number in sorted(commands.states(conn).items())},
            "parked": parked.count(conn),
            "halted": halted(conn),
            "connectors": {
                name: {**told, "state": states[name], "streams": streams.get(name, {})}
                for name, told in connected.items()
            },
        }


def _streams(conn: Connection) -> dict[str, dict[str, Any]]:
    """Instance → stream → its cursor and how many seconds ago that moved."""
    from hub.ledger import cursors
    from schemas.event import moment

    found: dict[str, dict[str, Any]] = {}
    now = datetime.now(UTC)
    for row in cursors.every(conn):
        age = round((now - moment(row.moved_at)).total_seconds(), 1)
        found.setdefault(row.instance, {})[row.stream] = {"cursor": row.cursor[:200], "age_seconds": age}
    return found


def connector_state(conn: Connection, name: str) -> str:
    """By the last fact that the hub has told of the instance: `paused`, `silent`, else `ok`."""
    from hub.ledger import outbox

    rows = outbox.of_subject(conn, f"connector/hub/{name}")
    last = str(rows[-1].type).rpartition(".")[2] if rows else "resumed"
    return "ok" if last == "resumed" else last


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """The answer for people."""
    if told["running"]:
        yield text(
            "  ✔ {name} 正在运行（进程 {pid}）  {url}", "  ✔ {name} is running (process {pid})  {url}"
        ).format_map(told)
    else:
        yield text("  ○ {name} 没有在运行 → hub up", "  ○ {name} is not running → hub up").format_map(told)
    for name, program in told["programs"].items():
        mark = {"ready": "✔", "starting": "…", "down": "✘"}[program["state"]]
        again = (
            text("，重启 {} 次", ", started again {} times").format(program["restarts"]) if program["restarts"] else ""
        )
        yield f"    {mark} {name}  {text(*STATES[program['state']])}{again}"
    if told["processor"] is not None:
        facts = {**told["processor"], "kafka": told["kafka"]}
        yield text(
            "  日志 {kafka}  事件 {events}  待处理 {lag}", "  log {kafka}  events {events}  to fold {lag}"
        ).format_map(facts)
    yield text(
        "  收下 {accepted}  等待归属 {held}  未发布 {unpublished}",
        "  accepted {accepted}  held {held}  unpublished {unpublished}",
    ).format_map(told)
    yield from _work(told)
    yield from (f"  ✘ {reason}" for reason in told["away"])


STATES = {"ready": ("就绪", "ready"), "starting": ("正在启动", "starting"), "down": ("已停", "down")}


def _work(told: Mapping[str, Any]) -> Iterator[str]:
    for halt in told["halted"]:
        error = FatalError(halt["code"], **halt)
        yield f"  ✘ {error.code} {error.message()}"
        yield f"    → {error.fix()}"
    if told["commands"]:
        counted = "  ".join(f"{state} {number}" for state, number in told["commands"].items())
        yield f"  {text('命令', 'commands')}  {counted}"
    if told["parked"]:
        counted = "  ".join(f"{kind} {number}" for kind, number in told["parked"].items())
        yield f"  ✘ {text('停放', 'parked')}  {counted}  → hub parked list"
    for name, connector in told["connectors"].items():
        state = connector.get("state", "ok")
        streams = "  ".join(
            f"{stream} {_ago(each['age_seconds'])}" for stream, each in connector.get("streams", {}).items()
        )
        mark = "✔" if state == "ok" else "✘"
        yield f"    {mark} {name} ({connector['use']})  {text(*CONNECTOR.get(state, (state, state)))}  {streams}".rstrip()
    for name, board in (told["boards"] or {}).items():
        yield f"    ▤ {name}  {_behind(board['behind'])}"


CONNECTOR = {"ok": ("正常", "ok"), "paused": ("已暂停", "paused"), "silent": ("长时间无消息", "silent for too long")}


def _ago(seconds: float) -> str:
    if seconds < 120:
        return text("{:.0f} 秒前", "{:.0f} s ago").format(seconds)
    return text("{:.0f} 分钟前", "{:.0f} min ago").format(seconds / 60)


def _behind(records: int | None) -> str:
    if records is None:
        return text("（未运行）", "(not running)")
    return text("与日志同步", "up with the log") if records == 0 else text("落后 {} 条", "{} behind").format(records)
