"""What `hub doctor` looks at in a home: its files and secrets, its calendar, and the broker, ledger and boards that it uses."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from hub.begin import open_to_others
from hub.cli import history
from hub.cli.checks_machine import Check, Level
from hub.cli.terminal import speech, text
from hub.errors import FatalError, HubError

if TYPE_CHECKING:
    from hub.cli.running_hub import RunningHub

SKEW = 2.0
"""Seconds between two clocks after which there is a warning."""
AHEAD = timedelta(days=60)
"""Deadlines fall this far ahead: the calendar should know those days."""


def of_error(check: str, error: HubError) -> Check:
    """A check that an error ended."""
    return Check(check, "FAIL", f"{error.code}  {error.message(speech.language)}", error.fix(speech.language))


def settings(hub: RunningHub) -> Check:
    """Whether `hub validate` would pass."""
    from hub.cli.validate import findings

    try:
        found = list(findings(hub.home.path))
    except HubError as error:
        return of_error("settings", error)
    errors = [error for error, is_error in found if is_error]
    if errors:
        said = text("{} 处错误，首先是 {}", "{} errors, first {}").format(
            len(errors), f"{errors[0].code} {errors[0].place}"
        )
        return Check("settings", "FAIL", said, "hub validate")
    if found:
        return Check("settings", "WARN", text("{} 处提醒", "{} warnings").format(len(found)), "hub validate")
    return Check("settings", "PASS", str(hub.home.path))


def secrets(hub: RunningHub) -> Check:
    """Whether every variable that hub.yaml names is set, and `.env` is nobody else's to read."""
    missing = sorted({str(error.seen["name"]) for error in hub.home.located.lacking.values()})
    if missing:
        return Check(
            "secrets",
            "FAIL",
            text("没有设置 {}", "not set: {}").format(", ".join(missing)),
            text("写进 .env", "write them into .env"),
        )
    file = hub.home.path / ".env"
    if file.is_file() and file.stat().st_mode & 0o077:
        return Check("secrets", "WARN", text("别人也能读 {}", "others may read {}").format(file), f"chmod 600 {file}")
    return Check("secrets", "PASS", text("都已设置", "all set"))


def writable(hub: RunningHub) -> Check:
    """Whether data can be written, nobody else can read them, and their path is not too long for a socket."""
    from hub.supervisor.run_folder import RunFolder
    from hub.unix_socket import check

    data = hub.home.data
    existing = next(each for each in (data, *data.parents) if each.exists())
    try:
        check(RunFolder(data / "run").socket)
    except HubError as error:
        return of_error("data folder", error)
    if open_to_others(data):
        said = text("别的账号也能读 {}", "other accounts may read {}").format(data)
        return Check("data folder", "WARN", said, f"chmod -R go= {shlex.quote(str(data))}")
    if os.access(existing, os.W_OK):
        return Check("data folder", "PASS", str(data))
    return Check(
        "data folder",
        "FAIL",
        str(data),
        text("给予写权限，或设置 HUB_DATA", "give the right to write there, or set HUB_DATA"),
    )


def calendar(hub: RunningHub) -> Check:
    """Whether the working days of the next weeks are known."""
    try:
        days = hub.home.rule_files().read().working_time
    except HubError as error:
        return of_error("calendar", error)
    until = datetime.now(UTC).date() + AHEAD
    said = f"{days.country}  {days.timezone}"
    if days.is_estimated(until):
        known = text("{} 年的调休还没有公布", "the moved weekends of {} are not published yet").format(until.year)
        fix = text(
            "公布后升级 holidays，或写进 calendar.yaml",
            "update holidays once they are, or write them into calendar.yaml",
        )
        return Check("calendar", "WARN", f"{said}: {known}", fix)
    return Check("calendar", "PASS", said)


def broker(hub: RunningHub) -> Iterator[Check]:
    """Whether the log answers, and how far the processor is behind."""
    from hub.cli.processor_lag import progress

    if not hub.runs and hub.home.config.kafka.embedded:
        yield Check("broker", "PASS", text("没有在运行；hub up 会启动它", "not running; hub up starts it"))
        return
    try:
        found = progress(hub.client)
    except HubError as error:
        yield of_error("broker", error)
        return
    yield Check("broker", "PASS", f"{hub.bootstrap}  {text('事件', 'events')} {sum(found.ends.values())}")
    yield from topics(hub)
    if found.lag and not hub.runs:
        said = text("{} 条待处理", "{} events to fold").format(found.lag)
        yield Check("processor", "WARN", said, text("启动：hub up", "start it: hub up"))


def topics(hub: RunningHub) -> Iterator[Check]:
    """Whether every topic is there, and kept for as long as the hub needs."""
    from hub.topic_settings import examined

    try:
        found = examined(hub.client)
    except HubError as error:
        yield of_error("topics", error)
        return
    for wrong in found.wrong:
        yield of_error("topics", FatalError("HUB-E2115", **wrong._asdict()))
    if found.missing:
        said = text("缺少 {}", "missing: {}").format(", ".join(found.missing))
        yield Check("topics", "FAIL", said, "hub doctor --fix")
    elif not found.wrong:
        yield Check("topics", "PASS", text("齐全，设置正确", "all there, and kept as they should be"))


def ledger(hub: RunningHub) -> Iterator[Check]:
    """Whether the ledger answers, its clock agrees with ours, and nothing in it waits for a person."""
    from hub.ledger import outbox, parked
    from hub.ledger.halts import halted
    from hub.ledger.leases import database_time

    try:
        with hub.look() as conn:
            if conn is None:
                yield Check("ledger", "PASS", text("还没有；首次启动时建立", "none yet; the first start makes it"))
                return
            counted, waiting = outbox.counts(conn), sum(parked.count(conn).values())
            skew, halts = database_time(conn) - time.time(), halted(conn)
            kept = {**history.look(hub.home, conn), "running": hub.runs}
    except HubError as error:
        yield of_error("ledger", error)
        return
    yield Check("ledger", "PASS", text("收下 {accepted} 条", "{accepted} accepted").format_map(counted))
    found = history.complaint(kept)
    said = history.sentence(kept)
    yield Check("history", "PASS", said) if found is None else Check("history", "WARN", f"{said}; {found[0]}", found[1])
    if abs(skew) > SKEW:
        said = text("数据库的时钟相差 {:.0f} 秒", "the database's clock differs by {:.0f} s").format(skew)
        yield Check("clocks", "WARN", said, text("两边都启用 NTP", "switch NTP on at both"))
    for halt in halts:
        yield of_error("log", FatalError(halt["code"], **halt))
    if waiting:
        yield Check("parked", "WARN", text("停放 {} 条", "{} parked").format(waiting), "hub parked list")


def boards(hub: RunningHub) -> Check:
    """Whether the boards' store answers."""
    from hub.health.board_places import board_places

    try:
        found = board_places(hub.home.boards_url)
    except HubError as error:
        return of_error("boards", error)
    return Check(
        "boards", "PASS", ", ".join(found) or text("还没有；首次启动时建立", "none yet; the first start makes them")
    )


def health(hub: RunningHub) -> Check:
    """Whether all moves: the verdict that `hub status`, /health and the pages tell."""
    from hub.cli.verdicts import verdict_of
    from hub.health.verdict import State
    from hub.health.words import sentence, told

    verdict = verdict_of(hub)
    if verdict.facts.running is False:
        return Check("health", "PASS", text("没有在运行", "it is not running"))
    said = sentence(verdict, speech.language)
    if not verdict.troubles:
        return Check("health", "PASS", said)
    more = "; ".join(told(trouble, speech.language) for trouble in verdict.troubles[1:4])
    level: Level = "WARN" if verdict.state < State.STALLED else "FAIL"
    return Check("health", level, f"{said} {more}".strip(), "hub status")
