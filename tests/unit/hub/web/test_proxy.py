"""What is no push goes to the boards as it came, streams unbuffered, and comes from a host that is ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from hub.intake.intake import Intake
from hub.ledger.ledger import Ledger
from hub.runtime.clock import SystemClock
from hub.web.bodies import MAX_BODY, Bodies
from hub.web.proxy import BoardsProxy
from hub.web.refusals import Refusals
from hub.web.webhooks import ListenAddress, Pushes, WebServer
from tests.pushing import Staff


@dataclass
class Boards:
    """A server on a socket that answers as a board would, and remembers what it was asked."""

    socket: Path
    asked: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    streaming: int = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        app = web.Application(client_max_size=8 * MAX_BODY)
        app.router.add_get("/stream", self._stream)
        app.router.add_get("/broken", self._broken)
        app.router.add_route("*", "/{rest:.*}", self._page)
        runner = web.AppRunner(app, shutdown_timeout=0.2, handler_cancellation=True)
        await runner.setup()
        await web.UnixSite(runner, str(self.socket)).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _page(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        self.bodies.append(await request.read())
        answer = web.Response(status=201, text="看板", headers={"X-Board": "tasks", "Keep-Alive": "timeout=9"})
        answer.headers.add("Set-Cookie", "a=1")
        answer.headers.add("Set-Cookie", "b=2")
        return answer

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        self.streaming += 1
        try:
            await answer.write(b"data: 1\n\n")
            await self.go_on.wait()
            await answer.write(b"data: 2\n\n")
        finally:
            self.streaming -= 1
        return answer

    async def _broken(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "100"})
        await answer.prepare(request)
        await answer.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return answer


@dataclass
class World:
    boards: Boards
    client: aiohttp.ClientSession
    url: str


Story = Callable[[World], Coroutine[Any, Any, None]]
Tell = Callable[..., None]


@pytest.fixture
def tell(ledger: Ledger, tmp_path: Path) -> Tell:
    """Run a story before a front door with boards behind it, or with none yet."""

    async def run(story: Story, there: bool) -> None:
        boards, bodies = Boards(tmp_path / "boards.sock"), Bodies()
        passage = BoardsProxy(boards.socket, bodies)
        pushes = Pushes(
            Intake(ledger, Staff(), SystemClock()), {}, bodies, SystemClock(), Refusals(ledger, SystemClock())
        )
        door = WebServer(ListenAddress(port=0), pushes, passage.answer)
        async with contextlib.AsyncExitStack() as stack:
            if there:
                await stack.enter_async_context(boards.open())
            await passage.open()
            stack.push_async_callback(door.close)
            stack.push_async_callback(passage.close)
            url = f"http://127.0.0.1:{await door.open()}"
            async with aiohttp.ClientSession(auto_decompress=False) as client:
                await story(World(boards, client, url))

    return lambda story, there=True: asyncio.run(run(story, there))


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()


def test_a_request_arrives_as_it_was_asked(tell: Tell) -> None:
    async def story(world: World) -> None:
        headers = {"Cookie": "x=1", "X-Forwarded-For": "6.6.6.6", "X-Private": "1"}
        headers["Connection"] = "close, X-Private, Cookie, Origin, Host"
        headers["Origin"] = "http://elsewhere.example"
        async with world.client.post(
            URL(f"{world.url}/boards/%E4%BB%BB?q=a%2Fb&q=2", encoded=True),
            data=b"f=1",
            headers=headers,
            skip_auto_headers=["User-Agent"],
        ) as answer:
            assert (answer.status, await answer.text()) == (201, "看板")
            assert answer.headers.getall("Set-Cookie") == ["a=1", "b=2"]
            assert (answer.headers["X-Board"], "Keep-Alive" in answer.headers) == ("tasks", False)
        (asked,) = world.boards.asked
        assert asked.raw_path == "/boards/%E4%BB%BB?q=a%2Fb&q=2"
        assert (asked.method, world.boards.bodies) == ("POST", [b"f=1"])
        assert asked.headers["Origin"] == "http://elsewhere.example", "no sender takes it off on the way"
        assert asked.headers["Host"] == world.url.removeprefix("http://")
        assert asked.headers["X-Forwarded-For"] == "127.0.0.1"
        assert (asked.headers["X-Forwarded-Proto"], asked.headers["Cookie"]) == ("http", "x=1")
        assert not {"X-Private", "User-Agent"} & set(asked.headers)

    tell(story)


def test_a_head_is_answered_without_a_body(tell: Tell) -> None:
    async def story(world: World) -> None:
        async with world.client.head(f"{world.url}/boards/tasks") as answer:
            assert (answer.status, await answer.read()) == (201, b"")
            assert answer.headers["Content-Length"] == "6"

    tell(story)


def test_a_stream_comes_through_piece_by_piece(tell: Tell) -> None:
    async def story(world: World) -> None:
        async with world.client.get(f"{world.url}/stream") as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            assert await answer.content.readany() == b"data: 1\n\n"
            world.boards.go_on.set()
            assert await answer.content.readany() == b"data: 2\n\n"

    tell(story)


def test_a_reader_who_leaves_a_stream_ends_it_over_there(tell: Tell) -> None:
    async def story(world: World) -> None:
        async with world.client.get(f"{world.url}/stream") as answer:
            await answer.content.readany()
            assert world.boards.streaming == 1
        async with asyncio.timeout(5):
            while world.boards.streaming:
                await asyncio.sleep(0.01)

    tell(story)


def test_more_tabs_than_bodies_fit_in_memory_may_stay_open(tell: Tell) -> None:
    async def story(world: World) -> None:
        async with contextlib.AsyncExitStack() as tabs:
            for _ in range(100):
                answer = await tabs.enter_async_context(world.client.get(f"{world.url}/stream"))
                assert answer.status == 200

    tell(story)


def test_an_answer_that_breaks_off_is_broken_off_here_too(tell: Tell) -> None:
    async def story(world: World) -> None:
        async with world.client.get(f"{world.url}/broken") as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()

    tell(story)


def test_until_the_boards_are_there_people_get_a_page_and_programs_a_problem(tell: Tell) -> None:
    async def story(world: World) -> None:
        page = {"Accept": "text/html,*/*", "Accept-Language": "en"}
        async with world.client.get(f"{world.url}/boards/tasks", headers=page) as answer:
            text = await answer.text()
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
            assert "看板正在启动" in text and "the boards are starting" in text
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        async with world.client.get(f"{world.url}/api/tasks") as answer:
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (503, "HUB-E7012")

    tell(story, there=False)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil:80",
        "",
        "[::2]:80",
        "10.0.0.1",
        "127.0.0.1:80@evil",
        "[::1]x",
    ],
)
def test_a_foreign_host_is_refused(tell: Tell, host: str) -> None:
    async def story(world: World) -> None:
        async with world.client.get(f"{world.url}/boards/tasks", headers={"Host": host}) as answer:
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (421, "HUB-E7011")
        assert world.boards.asked == []

    tell(story)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8600", "127.0.0.1:1", "[::1]:8600"])
def test_our_own_names_are_not(tell: Tell, host: str) -> None:
    async def story(world: World) -> None:
        async with world.client.get(f"{world.url}/boards/tasks", headers={"Host": host}) as answer:
            assert answer.status == 201

    tell(story)


def test_an_address_elsewhere_is_refused(tell: Tell) -> None:
    async def story(world: World) -> None:
        host, port = world.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET http://evil.example/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 421")
        writer.close()
        assert world.boards.asked == []

    tell(story)


def test_a_form_may_be_a_mebibyte_and_no_larger(tell: Tell) -> None:
    async def story(world: World) -> None:
        async def sent() -> AsyncIterator[bytes]:
            for _ in range(17):
                yield b"x" * (MAX_BODY // 16)

        async with world.client.post(f"{world.url}/tasks", data=sent()) as answer:
            assert answer.status == 413
        assert world.boards.asked == []

    tell(story)
