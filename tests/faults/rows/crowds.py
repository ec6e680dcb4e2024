"""Crowds before the door: a thousand strangers' connections (S19), and the worst that a sender of ours may push (S20).

A fault is some seconds of them, in which other senders are answered as if nobody else were there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import requests

from hub.runtime.program import raise_file_limit
from tests.acceptance.acme import SECRETS, Sender, deal
from tests.faults.row import Row
from tests.faults.stage import Stage

SECONDS = 12.0
"""Of one crowd."""
FILES = 1024
"""What an ordinary shell allows a program to open."""
LOGGED = 1_000_000
"""Bytes a minute that the connectors' log may grow by."""
BODY = b"POST /webhooks/crm HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 950_000
HEADS = (b"", b"P", b"POST /webhooks/crm HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: ")


@dataclass
class Answers:
    """How honest senders fared: seconds and status of each push, and of each look at `/health`."""

    seconds: list[float] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)

    def note(self, ask: Callable[[], int]) -> None:
        """Ask, and note how long the answer took."""
        began = time.monotonic()
        try:
            self.statuses.add(ask())
        except requests.RequestException:
            self.statuses.add(0)
        self.seconds.append(time.monotonic() - began)

    def within(self, share: float) -> float:
        """Seconds within which this share of the answers came."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


def allowed(seconds: float, calm: float) -> float:
    """What an answer may take: so long, or on a machine that is slow by itself four times what it took without the crowd."""
    return max(seconds, 4 * calm)


def calm(ask: Callable[[Answers], None]) -> Answers:
    """How the same senders fare before the crowd comes."""
    answers = Answers()
    for _ in range(30):
        ask(answers)
        time.sleep(0.05)
    return answers


def strangers(stage: Stage, chosen: random.Random) -> None:
    """Silent, slow and unfinished connections, each opened again when it is closed; the connectors may open 1,024 files."""
    pid = stage.pid("connectors")
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (FILES, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
    before_all = calm(lambda answers: _push_one(stage, answers)).within(0.99)
    log, answers = stage.hub.data / "logs" / "connectors.log", Answers()
    size, began = log.stat().st_size, time.monotonic()
    try:
        with _crowd(stage.hub.port, chosen):
            while time.monotonic() - began < SECONDS:
                _push_one(stage, answers)
                time.sleep(0.1)
    finally:
        with contextlib.suppress(OSError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    grown = (log.stat().st_size - size) / (time.monotonic() - began) * 60
    assert answers.statuses == {202}, f"signed pushes were answered {answers.statuses}"
    assert answers.within(0.99) <= allowed(1.0, before_all), (
        f"99 of 100 signed pushes within {answers.within(0.99):.2f} s"
    )
    assert grown <= LOGGED, f"the log grows by {grown:.0f} bytes a minute"
    stage.recovers()
    stage.faults += 1


def _push_one(stage: Stage, answers: Answers) -> None:
    """One deal more by a connection of its own, as a sender that comes now and then has it."""
    with stage.load.one_more() as number:
        sender = Sender(stage.hub.url, "crm", SECRETS["CRM_SECRET"])
        answers.note(lambda: sender.once(deal(number)).status_code)
        sender.push(deal(number))
        sender.session.close()


@contextlib.contextmanager
def _crowd(port: int, chosen: random.Random) -> Iterator[None]:
    """A thousand connections while the block runs."""
    raise_file_limit()
    stopping = threading.Event()
    kinds = [HEADS[chosen.randrange(len(HEADS))] for _ in range(920)] + [BODY] * 80
    chosen.shuffle(kinds)
    thread = threading.Thread(target=lambda: asyncio.run(_all(port, kinds, stopping)), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(30)


async def _all(port: int, kinds: list[bytes], stopping: threading.Event) -> None:
    tasks = [asyncio.create_task(_one(port, sent, at * 0.004)) for at, sent in enumerate(kinds)]
    while not stopping.is_set():
        await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _one(port: int, sent: bytes, pause: float) -> None:
    """One stranger, who comes again every ten seconds."""
    await asyncio.sleep(pause)
    while True:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(sent)
                await reader.read()
            finally:
                writer.close()
        await asyncio.sleep(max(1.0, 9.5 - (time.monotonic() - began)))


def odd(chosen: random.Random) -> bytes:
    """A mebibyte of JSON that costs most to read: numbers, deep lists, many keys; some with more values than are read."""
    kind = chosen.randrange(5)
    if kind == 0:
        inner = b"1.0," * 200_000 + b"1"
    elif kind == 1:
        inner = b",".join([b"[" * 30 + b"1.50" + b"]" * 30] * 1_600)
    elif kind == 2:
        inner = b",".join([b'{"k%d":1.10}' % at for at in range(24_000)])
    elif kind == 3:
        inner = b",".join([b'"\\ud83d"'] * 45_000)
    else:
        inner = b"1e-40," * 45_000 + b'"%s"' % (b"\\u0041" * 100_000)
    return b'{"type": "deal.viewed", "x": [%s], "n": "%s"}' % (inner[: 1_048_000 - 60], secrets.token_hex(8).encode())


def worst(stage: Stage, chosen: random.Random) -> None:
    """64 such pushes, eight at a time; `/health` and another system's pushes are answered in between."""
    bodies = [odd(chosen) for _ in range(64)]
    taken = list[int]()

    def push() -> None:
        sender = Sender(stage.hub.url, "crm", SECRETS["CRM_SECRET"])
        with contextlib.suppress(IndexError):
            while True:
                body = bodies.pop()
                headers = dict(sender.sign(body, f"msg_{secrets.token_hex(8)}"))
                taken.append(
                    sender.session.post(f"{sender.url}/webhooks/crm", body, headers=headers, timeout=60).status_code
                )

    def look_at_health() -> int:
        return look.get(f"{stage.hub.url}/health", timeout=30).status_code

    threads = [threading.Thread(target=push, daemon=True) for _ in range(8)]
    health, others, look = Answers(), Answers(), requests.Session()
    other = Sender(stage.hub.url, "pm", SECRETS["PM_SECRET"])
    calm_health = calm(lambda answers: answers.note(look_at_health))
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        health.note(look_at_health)
        others.note(lambda: other.once(b'{"type": "ping", "n": "%s"}' % secrets.token_hex(8).encode()).status_code)
        time.sleep(0.05)
    assert set(taken) <= {202, 400, 503}, f"odd JSON was answered {set(taken)}"
    assert others.statuses == {202}, f"another system's pushes were answered {others.statuses}"
    for name, answers in (("/health", health), ("another system", others)):
        most = allowed(0.25, calm_health.within(0.95))
        assert answers.within(0.95) <= most, f"{name}: 95 of 100 answers within {answers.within(0.95):.2f} s"
    stage.recovers()
    stage.faults += 1


ROWS = [
    Row("S19", "a thousand strangers' connections", 1, 25, strangers, any_store=True, per_second=3.0),
    Row("S20", "a sender's worst JSON, 64 MiB of it", 1, 50, worst, any_store=True, per_second=3.0),
]
