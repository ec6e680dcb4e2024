"""One program gives the door to the next: who comes in between waits and is served, and who is inside hears an answer."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import aiohttp

from hub.intake.intake import Intake
from hub.ledger.ledger import Ledger
from hub.runtime.clock import SystemClock
from hub.web.bodies import Bodies
from hub.web.refusals import Refusals
from hub.web.webhooks import ListenAddress, Pushes, WebServer
from tests.pushing import Staff, crm, deal, signed
from tests.unit.hub.web.test_front_door import _rest


def door_on(listening: int, ledger: Ledger) -> WebServer:
    receiver = crm().receives
    assert receiver is not None
    pushes = Pushes(
        Intake(ledger, Staff(), SystemClock()),
        {"crm": receiver},
        Bodies(),
        SystemClock(),
        Refusals(ledger, SystemClock()),
    )
    return WebServer(ListenAddress(listening=listening), pushes, _rest)


async def push(client: aiohttp.ClientSession, port: int, number: int) -> tuple[int, str | None, str | None]:
    body = deal(number)
    address = f"http://127.0.0.1:{port}/webhooks/crm"
    async with client.post(address, data=body, headers=signed(body, f"msg-{number}")) as answer:
        await answer.read()
        return answer.status, answer.headers.get("Retry-After"), answer.headers.get("Connection")


def test_connections_that_come_between_two_programs_are_served_by_the_second(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = int(held.getsockname()[1])

        async def story() -> None:
            async with aiohttp.ClientSession() as client, aiohttp.ClientSession() as inside:
                first = door_on(os.dup(held.fileno()), ledger)
                assert await first.open() == port
                assert (await push(inside, port, 1))[0] == 202
                closing = asyncio.ensure_future(first.drain())
                await asyncio.sleep(0)
                told = await push(inside, port, 2)  # on its open connection
                assert told == (503, "2", "close")
                waiting = asyncio.ensure_future(push(client, port, 3))
                await closing
                await first.close()
                assert not waiting.done()
                second = door_on(os.dup(held.fileno()), ledger)
                assert await second.open() == port
                assert (await waiting)[0] == 202
                await second.drain()
                await second.close()

        asyncio.run(story())
    ledger.close()
