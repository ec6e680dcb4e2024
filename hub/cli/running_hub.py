"""The hub of a home as commands find it: its notes, its log, its ledger. Nothing is opened before it is asked for."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub.cli.times import use_clock_of
from hub.errors import FatalError, HubError
from hub.home import Home
from hub.ledger.looking import look_at as look_at  # also for whoever has it from here
from hub.supervisor.run_folder import RunFolder

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.kafka_log import KafkaLog
    from hub.ledger.ledger import Ledger


@dataclass(frozen=True)
class RunningHub:
    """A home, and whatever runs on it now."""

    home: Home

    @classmethod
    def of(cls, path: Path) -> RunningHub:
        """The hub of the home at `path`; raises FatalError when that is none."""
        home = Home.load(path)
        use_clock_of(home.config.timezone)
        return cls(home)

    @functools.cached_property
    def notes(self) -> Mapping[str, Any]:
        """What the supervisor has noted; empty when none runs."""
        return RunFolder(self.home.data / "run").notes()

    @property
    def runs(self) -> bool:
        """Whether a supervisor lives on this machine."""
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
        """Where the broker is; raises as `client` does."""
        return str(self.client["bootstrap.servers"])

    def log(self) -> KafkaLog:
        """The log; raises as `client` does."""
        from hub.kafka_log import KafkaLog

        return KafkaLog(self.client)

    @contextlib.contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """The ledger, to write to; made if there is none."""
        from hub.ledger.ledger import Ledger

        opened = Ledger(self.home.ledger_url)
        try:
            yield opened
        finally:
            opened.close()

    @contextlib.contextmanager
    def look(self) -> Iterator[Connection | None]:
        """One consistent look at the ledger; None when there is none yet, and then none is made."""
        with look_at(self.home.ledger_url, "outbox") as conn:
            yield conn
