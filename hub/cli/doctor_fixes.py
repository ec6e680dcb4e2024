"""The fixes that `hub doctor --fix` applies: only unambiguous ones that lose no data."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hub.cli.terminal import text
from hub.errors import HubError

if TYPE_CHECKING:
    from hub.cli.running_hub import RunningHub


def apply_safe_fixes(hub: RunningHub) -> Iterator[str]:
    """Apply the safe fixes; yields a line about each."""
    yield from _folders(hub.home.data)
    yield from _secrets(hub.home.path / ".env")
    if not hub.runs:
        yield from _leftovers(hub.home.data / "run")
    yield from _topics(hub)


def _folders(data: Path) -> Iterator[str]:
    """Make our own folders writable again, where their mode was changed."""
    for folder in (data, *(data / name for name in ("run", "logs", "kafka"))):
        if not folder.is_dir():
            continue
        status = folder.stat()
        if status.st_uid == os.geteuid() and status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            folder.chmod(stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
            yield text("可以写入了：{}", "may be written again: {}").format(folder)


def _secrets(file: Path) -> Iterator[str]:
    """Make `.env` private to its owner."""
    if file.is_file() and file.stat().st_uid == os.geteuid() and file.stat().st_mode & 0o077:
        file.chmod(0o600)
        yield text("只有你能读了：{}", "only you can read it now: {}").format(file)


def _leftovers(run: Path) -> Iterator[str]:
    """Remove notes and sockets of a hub that was killed. Call it only while no hub runs."""
    for left in sorted([*run.glob("*.ready"), *run.glob("*.sock"), *run.glob("notes.json*")]):
        left.unlink(missing_ok=True)
        yield text("已清除上次运行的残留：{}", "left over from the last run, removed: {}").format(left)


def _topics(hub: RunningHub) -> Iterator[str]:
    """Create missing topics, and correct settings that would lose events."""
    from hub.log.topics import check_topics, correct_settings, ensure_topics

    if not hub.runs and hub.home.config.kafka.embedded:
        return
    try:
        report = check_topics(hub.client)
        if report.missing:
            ensure_topics(hub.client, replication=hub.home.config.kafka.replication)
        correct_settings(hub.client, report.wrong)
    except HubError:
        return  # the checks that follow report the broker's error
    for topic in report.missing:
        yield text("已建立主题 {}", "made the topic {}").format(topic)
    for wrong in report.wrong:
        yield text("主题 {0}：{1} 由 {2} 改为 {3}", "topic {0}: {1} was {2}, is {3}").format(*wrong)
