"""What `hub doctor --fix` mends by itself: only what can be wrong in one way, and loses nothing."""

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


def mended(hub: RunningHub) -> Iterator[str]:
    """Mend what can be mended safely, and say each thing that was."""
    yield from _folders(hub.home.data)
    yield from _secrets(hub.home.path / ".env")
    if not hub.runs:
        yield from _leftovers(hub.home.data / "run")
    yield from _topics(hub)


def _folders(data: Path) -> Iterator[str]:
    """Folders of ours that we may not write to, since somebody has changed their mode."""
    for folder in (data, *(data / name for name in ("run", "logs", "kafka"))):
        if not folder.is_dir():
            continue
        found = folder.stat()
        if found.st_uid == os.geteuid() and found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            folder.chmod(stat.S_IMODE(found.st_mode) | stat.S_IRWXU)
            yield text("可以写入了：{}", "may be written again: {}").format(folder)


def _secrets(file: Path) -> Iterator[str]:
    """Secrets that others may read."""
    if file.is_file() and file.stat().st_uid == os.geteuid() and file.stat().st_mode & 0o077:
        file.chmod(0o600)
        yield text("只有你能读了：{}", "nobody else may read it now: {}").format(file)


def _leftovers(run: Path) -> Iterator[str]:
    """Notes and sockets of a hub that was killed. Only while none runs."""
    for left in sorted([*run.glob("*.ready"), *run.glob("*.sock"), *run.glob("notes.json*")]):
        left.unlink(missing_ok=True)
        yield text("已清除上次运行的残留：{}", "left over from the last run, removed: {}").format(left)


def _topics(hub: RunningHub) -> Iterator[str]:
    """Topics that are missing, and settings by which events would be lost."""
    from hub.log.topics import ensure_topics, examined, set_right

    if not hub.runs and hub.home.config.kafka.embedded:
        return
    try:
        found = examined(hub.client)
        if found.missing:
            ensure_topics(hub.client, replication=hub.home.config.kafka.replication)
        set_right(hub.client, found.wrong)
    except HubError:
        return  # the checks that follow say what is wrong with the broker
    for topic in found.missing:
        yield text("已建立主题 {}", "made the topic {}").format(topic)
    for wrong in found.wrong:
        yield text("主题 {0}：{1} 由 {2} 改为 {3}", "topic {0}: {1} was {2}, is {3}").format(*wrong)
