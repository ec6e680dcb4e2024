"""Writes to the ledger: one thread a program, and one commit for all that was asked for in the meantime.

A commit costs a wait for the disk; a hundred pieces of work in one transaction share that wait. Each piece runs in a savepoint
of its own, so that one which fails takes nothing with it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from hub.errors import RetryableError
from hub.ledger.database import is_passing, unavailable, writing

T = TypeVar("T")
MOST = 256
"""Pieces of work in one transaction."""


@dataclass
class _Asked:
    work: Callable[[Connection], Any]
    answer: Future[Any]
    value: Any = None
    error: BaseException | None = None


class Writer:
    """The ledger's writing thread. `run` and `submit` may be called from any thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._listeners: list[Callable[[], None]] = []
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Have `work` done in a transaction; the future answers once that has committed.

        Its errors are the work's own, and RetryableError when the database could not commit: then nothing of it is kept.
        """
        answer: Future[T] = Future()
        if self._closed:
            answer.set_exception(RetryableError("HUB-E5005"))
        else:
            self._asked.put(_Asked(work, answer))
        return answer

    def run(self, work: Callable[[Connection], T]) -> T:
        """Have `work` done and wait for its commit."""
        return self.submit(work).result()

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every commit, from the writing thread; it must return at once."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Finish what was asked for, then stop."""
        self._closed = True
        self._asked.put(None)
        self._thread.join(30)

    def _loop(self) -> None:
        while True:
            first = self._asked.get()
            if first is None:
                return
            batch = [first, *self._more()]
            # From here on nobody can cancel: an answer that could not be given would end this thread.
            self._write([asked for asked in batch if asked is not None and asked.answer.set_running_or_notify_cancel()])
            if None in batch:
                return

    def _more(self) -> list[_Asked | None]:
        more: list[_Asked | None] = []
        while len(more) < MOST and not (more and more[-1] is None):
            try:
                more.append(self._asked.get_nowait())
            except queue.Empty:
                break
        return more

    def _write(self, batch: list[_Asked]) -> None:
        try:
            with writing(self.engine) as conn:
                for asked in batch:
                    self._one(conn, asked)
        except BaseException as error:
            for asked in batch:
                asked.answer.set_exception(error)
            return
        for listener in self._listeners:
            listener()
        for asked in batch:
            _tell(asked)

    def _one(self, conn: Connection, asked: _Asked) -> None:
        try:
            with _savepoint(conn):
                asked.value = asked.work(conn)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise unavailable(self.engine, error) from error
            # Two programs that write the same rows may each wait for the other; the database then ends one of them.
            asked.error = unavailable(self.engine, error) if is_passing(error) else error
        except BaseException as error:
            asked.error = error


@contextlib.contextmanager
def _savepoint(conn: Connection) -> Iterator[None]:
    """As `Connection.begin_nested`, at a third of its cost: there is one for every piece of work."""
    conn.exec_driver_sql("SAVEPOINT work")
    try:
        yield
    except BaseException:
        if not conn.invalidated:  # a connection that is lost has rolled back by itself
            conn.exec_driver_sql("ROLLBACK TO SAVEPOINT work")
            conn.exec_driver_sql("RELEASE SAVEPOINT work")
        raise
    conn.exec_driver_sql("RELEASE SAVEPOINT work")


def _tell(asked: _Asked) -> None:
    if asked.error is None:
        asked.answer.set_result(asked.value)
    else:
        asked.answer.set_exception(asked.error)
