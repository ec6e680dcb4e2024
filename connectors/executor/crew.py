"""The threads that call one instance, and write down what it answered: one that hangs takes no other instance's."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Crew:
    """Daemon threads, made when first needed: a call that never ends must not keep the program from leaving."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def do(self, job: Callable[[], None], hands: int) -> None:
        """Have a job done by one of at most `hands` threads. The job must not raise."""
        if len(self._threads) < hands:
            name = f"{self.name}-{len(self._threads) + 1}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)

    def leave(self) -> None:
        """Have every thread end after the job it has."""
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
