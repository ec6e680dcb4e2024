"""The boards of one program: one runner and one thread per board. A permanent failure of one board stops them all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from hub.kit.projection import AnyProjection
from hub.log.event_log import EventLog
from hub.projector.rebuild import rebuild
from hub.projector.runner import LogEnds, OnCommit, Runner, holder_id
from hub.projector.store import BoardStore
from hub.runtime.clock import Clock, SystemClock


@dataclass
class BoardRunners:
    """Runs all boards. `failed` is called once, from the thread of the failing board; `error` then holds its exception."""

    log: EventLog
    store: BoardStore
    projections: Collection[AnyProjection]
    on_commit: OnCommit = lambda name, changes, at: None
    failed: Callable[[], None] = lambda: None
    clock: Clock = field(default_factory=SystemClock)
    error: BaseException | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Create the store's tables, then start the threads. Raises RetryableError while the store is unavailable."""
        self.store.prepare(self.projections)
        ends, holder = LogEnds(self.log, self.clock), holder_id()
        for projection in self.projections:
            runner = Runner(self.log, self.store, projection, self.clock, self.on_commit, self._rebuild, ends, holder)
            thread = threading.Thread(target=self._run, args=(runner,), name=f"board-{projection.name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _rebuild(self, projection: AnyProjection) -> None:
        rebuild(self.log, self.store, projection)

    def _run(self, runner: Runner) -> None:
        try:
            runner.run(self._stop)
        except BaseException as error:
            first, self.error = self.error is None, self.error or error
            self._stop.set()
            if first:
                self.failed()

    def stop(self, seconds: float = 10.0) -> None:
        """Let every runner finish its batch and release its board; wait up to `seconds` for each."""
        self._stop.set()
        for thread in self._threads:
            thread.join(seconds)
