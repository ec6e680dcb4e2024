"""`python -m tests.bench.sink`: the project tool that hub and peers call, in a process of its own; its one line is its port.

POST /tasks makes a task of a project. GET /done tells how many tasks there are, and when each project had all three (in seconds);
GET /first when the first task of each came, by the machine's monotonic clock.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import orjson
from aiohttp import web

TASKS = 3


class Sink:
    """Counts tasks by project; a key that came before makes no second task, as tools that know keys have it."""

    def __init__(self) -> None:
        self.tasks: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.complete: list[float] = []
        self.first: dict[str, float] = {}

    async def make(self, request: web.Request) -> web.Response:
        """POST /tasks."""
        body = orjson.loads(await request.read())
        key = request.headers.get("Idempotency-Key")
        if key is None or key not in self.keys:
            self._count(body["project"], key)
        answer = orjson.dumps({"id": f"T-{self.tasks.total()}", **body})
        return web.Response(body=answer, status=201, content_type="application/json")

    def _count(self, project: str, key: str | None) -> None:
        self.first.setdefault(project, time.monotonic())
        self.tasks[project] += 1
        if key is not None:
            self.keys.add(key)
        if self.tasks[project] == TASKS:
            self.complete.append(time.monotonic())

    async def done(self, _request: web.Request) -> web.Response:
        """GET /done."""
        told = {"tasks": self.tasks.total(), "complete": self.complete}
        return web.Response(body=orjson.dumps(told), content_type="application/json")

    async def begun(self, _request: web.Request) -> web.Response:
        """GET /first."""
        return web.Response(body=orjson.dumps(self.first), content_type="application/json")


async def serve() -> None:
    """Until it is ended."""
    sink = Sink()
    app = web.Application()
    app.add_routes([web.post("/tasks", sink.make), web.get("/done", sink.done), web.get("/first", sink.begun)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
