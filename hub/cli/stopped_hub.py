"""The log of a hub that is stopped: its own broker is started for the time of a command, and nothing else of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hub.cli.running_hub import RunningHub
    from hub.kafka_log import KafkaLog


@contextlib.contextmanager
def opened_log(hub: RunningHub) -> Iterator[KafkaLog]:
    """The log of a hub that runs, of a cluster, or of the embedded broker, which runs for the time of the block.

    Raises FatalError HUB-E1010 when the hub is just being started or stopped.
    """
    from hub.kafka_log import KafkaLog
    from hub.supervisor.supervisor import Supervisor
    from hub.topics import ensure_topics

    if hub.runs or not hub.home.config.kafka.embedded:
        if not hub.runs:
            ensure_topics(hub.client, replication=hub.home.config.kafka.replication)
        yield hub.log()
        return
    supervisor = Supervisor(hub.home, _silent, only=())
    with supervisor.run.claim():
        try:
            supervisor.start()
            yield KafkaLog(hub.home.kafka_client(supervisor.bootstrap))
        finally:
            supervisor.stop()


def set_log_aside(hub: RunningHub, why: str) -> str | None:
    """Rename the embedded broker's folder, so that a new log is made in its place; its new name, None for a cluster's log."""
    if not hub.home.config.kafka.embedded:
        return None
    folder = hub.home.data / "kafka"
    return str(folder.rename(folder.with_name(f"kafka.{why}-{datetime.now(UTC):%Y%m%dT%H%M%S}")))


def _silent(_what: str, _facts: Mapping[str, Any]) -> None:
    """Nobody needs to hear of a broker that is started for a moment."""
