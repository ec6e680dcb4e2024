"""Group commit for the ledger: one writer thread per process commits all requests that queued up in one transaction.

A commit costs one fsync; a hundred requests in one transaction share it. When one request of a batch fails, the transaction is
rolled back and every request runs again in a savepoint of its own, so that a failure affects no other request. Work therefore must
tolerate being started twice.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from hub.errors import RetryableError
from hub.ledger.database import is_transient, unavailable, writing
from hub.runtime.watchdog import at_work

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741  # item, as T is type
BatchWork = Callable[[Connection, Sequence[I]], Sequence[T]]
"""Processes many items in order, with the same effect as one call for each; returns one result for each item."""
MAX_BATCH = 256
"""Requests in one transaction."""


@dataclass
class _Request:
    work: Callable[[Connection], Any]
    result: Future[Any]
    batch_work: BatchWork[Any, Any] | None = None
    item: Any = None
    value: Any = None
    error: BaseException | None = None


class LedgerWriter:
    """The ledger's writing thread. `run` and `submit` may be called from any thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._listeners: list[Callable[[], None]] = []
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Run `work` in a transaction; the future resolves after the commit.

        It fails with the error that `work` raised, or with RetryableError when the database could not commit; then nothing of
        `work` is stored.
        """
        return self._enqueue(_Request(work, Future()))

    def gather(self, work: BatchWork[I, T], item: I) -> Future[T]:
        """As `submit`, for work that is cheaper in bulk: consecutive queued items of the same `work` go into one call.

        When a bulk call fails, `work` runs once for each item, so that a failing item affects no other.
        """
        return self._enqueue(_Request(lambda conn: work(conn, [item])[0], Future(), work, item))

    def _enqueue(self, request: _Request) -> Future[Any]:
        if self._closed:
            request.result.set_exception(RetryableError("HUB-E5005"))
        else:
            self._queue.put(request)
        return request.result

    def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work` and block until its commit; returns its result or raises its error."""
        return self.submit(work).result()

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every commit, on the writer thread; it must not block."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Process the queued requests, then stop the thread; waits at most 30 s."""
        self._closed = True
        self._queue.put(None)
        self._thread.join(30)

    def _loop(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            batch = [first, *self._queued()]
            # From here on the futures cannot be cancelled: setting the result of a cancelled one would end this thread.
            with at_work("ledger-writer"):
                self._write([each for each in batch if each is not None and each.result.set_running_or_notify_cancel()])
            if None in batch:
                return

    def _queued(self) -> list[_Request | None]:
        queued: list[_Request | None] = []
        while len(queued) < MAX_BATCH and not (queued and queued[-1] is None):
            try:
                queued.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return queued

    def _write(self, batch: list[_Request]) -> None:
        try:
            if not self._write_together(batch):
                self._write_separately(batch)
        except BaseException as error:
            for request in batch:
                request.result.set_exception(error)
            return
        for listener in self._listeners:
            listener()
        for request in batch:
            _resolve(request)

    def _write_together(self, batch: list[_Request]) -> bool:
        """Run the whole batch in one transaction. False when one of several requests failed; then nothing was committed.

        A batch of one raises the error of its request.
        """
        try:
            with writing(self.engine) as conn:
                for batch_work, group in itertools.groupby(batch, key=lambda request: request.batch_work):
                    _execute(conn, batch_work, list(group), len(batch) == 1)
        except _BatchFailedError:
            return False
        return True

    def _write_separately(self, batch: list[_Request]) -> None:
        with writing(self.engine) as conn:
            for request in batch:
                self._write_one(conn, request)

    def _write_one(self, conn: Connection, request: _Request) -> None:
        try:
            with _savepoint(conn):
                request.value = request.work(conn)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise unavailable(self.engine, error) from error
            # Two processes that write the same rows can deadlock; the database then aborts one of them.
            request.error = unavailable(self.engine, error) if is_transient(error) else error
        except BaseException as error:
            request.error = error


class _BatchFailedError(Exception):
    """One of several requests of a batch failed."""


def _execute(conn: Connection, batch_work: BatchWork[Any, Any] | None, group: list[_Request], is_only: bool) -> None:
    """Run consecutive requests of the same work. One failure fails the batch, since the failed request may be half done."""
    try:
        if batch_work is None or len(group) == 1:
            for request in group:
                request.value = request.work(conn)
        else:
            for request, value in zip(group, batch_work(conn, [each.item for each in group]), strict=True):
                request.value = value
    except Exception as error:
        if is_only:
            raise
        raise _BatchFailedError from error


@contextlib.contextmanager
def _savepoint(conn: Connection) -> Iterator[None]:
    """As `Connection.begin_nested`, at a third of its cost: every request of a failed batch needs one."""
    conn.exec_driver_sql("SAVEPOINT work")
    try:
        yield
    except BaseException:
        if not conn.invalidated:  # a lost connection has rolled back by itself
            conn.exec_driver_sql("ROLLBACK TO SAVEPOINT work")
            conn.exec_driver_sql("RELEASE SAVEPOINT work")
        raise
    conn.exec_driver_sql("RELEASE SAVEPOINT work")


def _resolve(request: _Request) -> None:
    if request.error is None:
        request.result.set_result(request.value)
    else:
        request.result.set_exception(request.error)
