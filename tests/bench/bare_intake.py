"""`python -m tests.bench.bare_intake URL PORT`: the least that accepts a push durably, to measure the hub's intake against.

aiohttp.web answers 202 once the body is a committed row. One thread writes: all that came in the meantime is one executemany
and one commit, by the database's own driver. Nothing is verified, read, or sent on.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence

import psycopg
from aiohttp import web
from sqlalchemy.engine import make_url

Row = tuple[str, bytes]
Write = Callable[[Sequence[Row]], None]
Asked = tuple[Row, asyncio.Future[None]]
MOST = 256


def writing(url: str) -> Write:
    """Open the database; what comes back commits rows durably."""
    if url.startswith("sqlite"):
        return _sqlite(make_url(url).database or "")
    return _postgresql(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))


def _sqlite(path: str) -> Write:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"):
        connection.execute(statement)
    connection.execute("CREATE TABLE pushes (id TEXT PRIMARY KEY, body BLOB NOT NULL)")

    def write(rows: Sequence[Row]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO pushes VALUES (?, ?) ON CONFLICT DO NOTHING", rows)
        connection.execute("COMMIT")

    return write


def _postgresql(url: str) -> Write:
    connection = psycopg.connect(url)
    connection.execute("CREATE TABLE pushes (id TEXT PRIMARY KEY, body BYTEA NOT NULL)")
    connection.commit()

    def write(rows: Sequence[Row]) -> None:
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO pushes VALUES (%s, %s) ON CONFLICT DO NOTHING", rows)
        connection.commit()

    return write


class Intake:
    """Takes bodies in, and answers when they are committed."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._asked: queue.SimpleQueue[Asked] = queue.SimpleQueue()

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """202, once it is durable."""
        body = await request.read()
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.put(((request.headers["webhook-id"], body), committed))
        await committed
        return web.Response(status=202, body=b"{}", content_type="application/json")

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write for ever."""
        while True:
            batch = [self._asked.get()]
            while len(batch) < MOST and not self._asked.empty():
                batch.append(self._asked.get())
            self._write([row for row, _ in batch])
            loop.call_soon_threadsafe(_told, batch)


def _told(batch: Sequence[Asked]) -> None:
    for _, committed in batch:
        if not committed.done():
            committed.set_result(None)


async def main(url: str, port: int) -> None:
    """Serve until killed."""
    intake = Intake(writing(url))
    threading.Thread(target=intake.run, args=(asyncio.get_running_loop(),), daemon=True).start()
    runner = web.ServerRunner(web.Server(intake.answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
