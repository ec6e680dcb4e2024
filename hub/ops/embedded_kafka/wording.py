"""The embedded broker's progress messages while it starts, in both languages."""

from __future__ import annotations

from collections.abc import Callable

from hub.errors import preferred_language

Progress = Callable[[str, float | None], None]
"""Called with one line for a person, and the fraction of that step that is done (0 to 1, None when unknown)."""

LINES = {
    "jars": {
        "zh-CN": "正在获取 Kafka {version}（{megabytes} MB，仅首次运行）",
        "en": "fetching Kafka {version} ({megabytes} MB, first run only)",
    },
    "orphan": {
        "zh-CN": "正在停止上次运行遗留的 Kafka 进程 {pid}",
        "en": "stopping the Kafka process {pid} that an earlier run left behind",
    },
    "format": {"zh-CN": "正在准备 Kafka 数据目录 {data}", "en": "preparing Kafka's data folder {data}"},
    "start": {"zh-CN": "正在启动 Kafka {version}，端口 {port}", "en": "starting Kafka {version} on port {port}"},
    "ready": {
        "zh-CN": "Kafka 已就绪：{bootstrap}（{seconds} 秒）",
        "en": "Kafka is up on {bootstrap} ({seconds} s)",
    },
}


def say(line: str, **facts: object) -> str:
    """One line in the user's language."""
    return LINES[line][preferred_language()].format(**facts)


def quiet(line: str, done: float | None) -> None:
    """Progress that is discarded."""
