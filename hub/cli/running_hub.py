"""The hub of a home for commands: its run folder's notes, log, ledger and history. Each is opened on first use.

For a stopped hub `opened_log` starts the embedded broker for the time of a command, and nothing else.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub.cli.render import use_clock_of
from hub.errors import FatalError, HubError
from hub.home import Home
from hub.ledger.ledger import read_snapshot
from hub.runtime.run_folder import RunFolder

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.ledger.ledger import Ledger
    from hub.log.event_log import OffsetReader, Record
    from hub.log.kafka_log import KafkaLog
    from hub.replay.history import History


@dataclass(frozen=True)
class RunningHub:
    """A home, and the hub that runs on it, if any."""

    home: Home

    @classmethod
    def of(cls, path: Path) -> RunningHub:
        """The hub of the home at `path`; raises FatalError when that is no home."""
        home = Home.load(path)
        use_clock_of(home.config.timezone)
        return cls(home)

    @functools.cached_property
    def notes(self) -> Mapping[str, Any]:
        """The supervisor's notes in the run folder; empty when none runs."""
        return RunFolder(self.home.data / "run").notes()

    @property
    def runs(self) -> bool:
        """Whether a supervisor of this home runs on this machine."""
        return bool(self.notes)

    @property
    def client(self) -> dict[str, Any]:
        """librdkafka's settings; raises FatalError HUB-E2011 when the embedded broker does not run."""
        try:
            return self.home.kafka_client(self.notes.get("kafka") or None)
        except HubError as error:
            raise FatalError("HUB-E2011", home=self.home.path) from error

    @property
    def bootstrap(self) -> str:
        """The broker's address; raises as `client` does."""
        return str(self.client["bootstrap.servers"])

    def log(self) -> KafkaLog:
        """The log; raises as `client` does."""
        from hub.log.kafka_log import KafkaLog

        return KafkaLog(self.client)

    @contextlib.contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """The ledger for writing; created if there is none."""
        from hub.ledger.ledger import Ledger

        opened = Ledger(self.home.ledger_url)
        try:
            yield opened
        finally:
            opened.close()

    @contextlib.contextmanager
    def look(self) -> Iterator[Connection | None]:
        """One consistent snapshot of the ledger; None when there is none yet, and none is created."""
        with read_snapshot(self.home.ledger_url, "outbox") as conn:
            yield conn

    @contextlib.contextmanager
    def history(self) -> Iterator[History]:
        """The history, from those of ledger, trail and log that are reachable.

        Raises FatalError HUB-E5006 where there is neither a ledger nor a trail, and the ledger's own error when it cannot be read
        and there is no trail.
        """
        from hub.projector.trail import open_trail
        from hub.replay.history import History

        with contextlib.ExitStack() as stack:
            trail = stack.enter_context(open_trail(self.home.boards_url))
            try:
                ledger = stack.enter_context(self.look())
            except HubError:
                if trail is None:
                    raise
                ledger = None
            if ledger is None and trail is None:
                raise FatalError("HUB-E5006", home=self.home.path)
            places = _LazyRecordReader(self)
            stack.callback(places.close)
            yield History(ledger, trail, places)


class _LazyRecordReader:
    """Reads single records of the log. Opens no connection before the first read."""

    def __init__(self, hub: RunningHub) -> None:
        self._hub = hub
        self._opened: OffsetReader | None = None

    def at(self, partition: int, offsets: Iterable[int]) -> dict[int, Record]:
        from schemas.topics import EVENTS

        if self._opened is None:
            self._opened = self._hub.log().places(EVENTS.name)
        return self._opened.at(partition, offsets)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()


if TYPE_CHECKING:
    from hub.log.kafka_log import KafkaLog


@contextlib.contextmanager
def opened_log(hub: RunningHub) -> Iterator[KafkaLog]:
    """The log of a hub that runs, of a cluster, or of the embedded broker, which runs for the time of the block.

    Raises FatalError HUB-E1010 when the hub is just being started or stopped.
    """
    from hub.log.kafka_log import KafkaLog
    from hub.log.topics import ensure_topics
    from hub.ops.supervisor import Supervisor

    if hub.runs or not hub.home.config.kafka.embedded:
        if not hub.runs:
            ensure_topics(hub.client, replication=hub.home.config.kafka.replication)
        yield hub.log()
        return
    supervisor = Supervisor(hub.home, _ignore_progress, only=())
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


def _ignore_progress(_what: str, _facts: Mapping[str, Any]) -> None:
    """Report nothing: the broker is started only for this command."""
