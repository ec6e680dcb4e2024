"""Writes to the ledger: one thread a program, and one commit for all that was asked for in the meantime.

A commit costs a wait for the disk; a hundred pieces of work in one transaction share that wait. When one of them fails, all are
done again, each in a savepoint of its own, so that one which fails takes nothing with it: work must stand being begun twice.
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
from hub.ledger.database import is_passing, unavailable, writing
from hub.runtime.watchdog import at_work

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741  # item, as T is type
Together = Callable[[Connection, Sequence[I]], Sequence[T]]
"""Does for many items what would be done for each alone, in their order; an answer for each."""
MOST = 256
"""Pieces of work in one transaction."""


@dataclass
class _Asked:
    work: Callable[[Connection], Any]
    answer: Future[Any]
    together: Together[Any, Any] | None = None
    item: Any = None
    value: Any = None
    error: BaseException | None = None


class LedgerWriter:
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
        return self._ask(_Asked(work, Future()))

    def gather(self, work: Together[I, T], item: I) -> Future[T]:
        """As `submit`, where `work` costs less for many: it is called with all items that wait for it one after another.

        When it fails for many, it is called for each alone, so that one that fails takes nothing with it.
        """
        return self._ask(_Asked(lambda conn: work(conn, [item])[0], Future(), work, item))

    def _ask(self, asked: _Asked) -> Future[Any]:
        if self._closed:
            asked.answer.set_exception(RetryableError("HUB-E5005"))
        else:
            self._asked.put(asked)
        return asked.answer

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
            with at_work("ledger-writer"):
                self._write([one for one in batch if one is not None and one.answer.set_running_or_notify_cancel()])
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
            if not self._done_plainly(batch):
                self._done_apart(batch)
        except BaseException as error:
            for asked in batch:
                asked.answer.set_exception(error)
            return
        for listener in self._listeners:
            listener()
        for asked in batch:
            _tell(asked)

    def _done_plainly(self, batch: list[_Asked]) -> bool:
        """Do all as one. False when one of several failed; then nothing was kept. Raises what one that is alone raises."""
        try:
            with writing(self.engine) as conn:
                for together, alike in itertools.groupby(batch, key=lambda asked: asked.together):
                    _do(conn, together, list(alike), len(batch) == 1)
        except _PieceFailedError:
            return False
        return True

    def _done_apart(self, batch: list[_Asked]) -> None:
        with writing(self.engine) as conn:
            for asked in batch:
                self._one(conn, asked)

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


class _PieceFailedError(Exception):
    """One of several pieces of work failed."""


def _do(conn: Connection, together: Together[Any, Any] | None, alike: list[_Asked], alone: bool) -> None:
    """Do what is alike; what fails fails all, as something that failed in the middle may have been half done."""
    try:
        if together is None or len(alike) == 1:
            for asked in alike:
                asked.value = asked.work(conn)
        else:
            for asked, answer in zip(alike, together(conn, [asked.item for asked in alike]), strict=True):
                asked.value = answer
    except Exception as error:
        if alone:
            raise
        raise _PieceFailedError from error


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
