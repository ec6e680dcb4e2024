"""A small Faust program for `test_faust_traps.py`: one trap, on bare Faust or on our chunks. It says what it does.

`python -m tests.broker.faust_story TRAP bare|ours BOOTSTRAP TOPIC [well]`; with `well` nothing fails, as after a fix.

Lines: `ready`, `begin X` and `done X` for each value handled, `commit` after each attempt to commit. SIGUSR1 stops its agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import faust
from faust.types import StreamT

from hub.log.event_log import Outgoing
from hub.log.kafka_log import KafkaLog
from hub.processor.app import SETTINGS
from hub.processor.halting import guard
from hub.processor.source import Chunk, ChunkTransport, faust_broker
from tests.kafka_fixture import client_of

OUTPUTS = 50
"""Of one event, in P5; together more than a producer sends in one request."""


def say(*words: object) -> None:
    print(*words, flush=True)


def value_of(chunk: Chunk) -> str:
    """The test appends one record at a time, so a chunk here is one value."""
    return ",".join((record.value or b"").decode(errors="replace") for record in chunk.records)


class Story:
    """What every story has: an app on a topic, and whether things go well this time."""

    def __init__(self, bootstrap: str, topic: str, ours: bool, well: bool) -> None:
        self.bootstrap, self.well = bootstrap, well
        settings: dict[str, Any] = {**(SETTINGS if ours else BARE), "broker_commit_interval": 0.1}
        settings |= {"datadir": tempfile.mkdtemp(), "consumer_group_instance_id": "one"}
        url, credentials = faust_broker(client_of(bootstrap))
        self.app = faust.App(f"group-{topic}", broker=url, broker_credentials=credentials, **settings)
        if ours:
            self.app.transport = ChunkTransport(self.app.conf.broker, self.app, loop=self.app.loop)
        self.input = self.app.topic(topic, key_serializer="raw", value_serializer="raw")
        self.output = f"{topic}-out"

    async def stuck(self) -> None:
        """An effect that never ends."""
        await asyncio.Event().wait()


BARE: dict[str, Any] = {
    "topic_allow_declare": False,
    "topic_disable_leader": True,
    "web_enabled": False,
    "broker_session_timeout": 10.0,
    "broker_heartbeat_interval": 3.0,
}
"""Faust as it is, but for what this broker and these tests need."""


def p1_bare(story: Story) -> None:
    @story.app.agent(story.input)
    async def handle(stream: StreamT[bytes]) -> None:
        async for value in stream:
            say("begin", value.decode())
            if value == b"b" and not story.well:
                raise ValueError("the handler has a mistake")
            say("done", value.decode())


def p1_ours(story: Story) -> None:
    @story.app.agent(story.input)
    async def handle(stream: StreamT[Chunk]) -> None:
        async for chunk in stream:
            with guard(chunk):
                say("begin", value_of(chunk))
                if value_of(chunk) == "b" and not story.well:
                    raise ValueError("the handler has a mistake")
                say("done", value_of(chunk))
                chunk.done()


def p2_bare(story: Story) -> None:
    @story.app.agent(story.input)
    async def handle(stream: StreamT[bytes]) -> None:
        async for event in stream.noack().events():  # type: ignore[attr-defined]  # its interface forgets it
            say("begin", event.value.decode())
            if event.value != b"b" or story.well:
                say("done", event.value.decode())
                event.ack()


def p2_ours(story: Story) -> None:
    @story.app.agent(story.input)
    async def handle(stream: StreamT[Chunk]) -> None:
        async for chunk in stream:
            say("begin", value_of(chunk))
            if value_of(chunk) != "b" or story.well:
                say("done", value_of(chunk))
                chunk.done()


def p3_bare(story: Story) -> None:
    @story.app.agent(story.input, concurrency=2)
    async def handle(stream: StreamT[bytes]) -> None:
        async for value in stream:
            say("begin", value.decode())
            if value == b"b" and not story.well:
                await story.stuck()
            say("done", value.decode())


def p3_ours(story: Story) -> None:
    @story.app.agent(story.input, concurrency=2)
    async def handle(stream: StreamT[Chunk]) -> None:
        async for chunk in stream:
            say("begin", value_of(chunk))
            if value_of(chunk) == "b" and not story.well:
                await story.stuck()
            say("done", value_of(chunk))
            chunk.done()


def p4_bare(story: Story) -> None:
    as_json = story.app.topic(*story.input.topics, value_serializer="json")

    @story.app.agent(as_json)
    async def handle(stream: StreamT[Any]) -> None:
        async for value in stream:
            say("begin", value)
            say("done", value)


p4_ours = p2_ours


def p5_bare(story: Story) -> None:
    output = story.app.topic(story.output, value_serializer="raw")

    @story.app.agent(story.input)
    async def handle(stream: StreamT[bytes]) -> None:
        async for value in stream:
            say("begin", value.decode())
            await line_on_stdin()
            for n in range(OUTPUTS):
                output.send_soon(key=b"k", value=b"%d:%s" % (n, b"x" * 3000))
            say("done", value.decode())


def p5_ours(story: Story) -> None:
    writer = KafkaLog(client_of(story.bootstrap)).writer()

    @story.app.agent(story.input)
    async def handle(stream: StreamT[Chunk]) -> None:
        async for chunk in stream:
            with guard(chunk):
                say("begin", value_of(chunk))
                await line_on_stdin()
                outputs = [Outgoing(story.output, b"k", b"%d:%s" % (n, b"x" * 3000)) for n in range(OUTPUTS)]
                await asyncio.to_thread(writer.append, outputs)
                say("done", value_of(chunk))
                chunk.done()


def p7_bare(story: Story) -> None:
    @story.app.agent(story.input)
    async def handle(stream: StreamT[bytes]) -> None:
        async for batch in stream.take(2, within=30):
            values = ",".join(value.decode() for value in batch)
            say("begin", values)
            if not story.well:
                raise ValueError("the handler has a mistake")
            say("done", values)


def p7_ours(story: Story) -> None:
    @story.app.agent(story.input)
    async def handle(stream: StreamT[Chunk]) -> None:
        async for chunk in stream:
            with guard(chunk):
                say("begin", value_of(chunk))
                if not story.well:
                    raise ValueError("the handler has a mistake")
                say("done", value_of(chunk))
                chunk.done()


p8_bare, p8_ours = p3_bare, p3_ours


async def line_on_stdin() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


class TellCommits(logging.Handler):
    """Says `commit sent` when aiokafka has written a commit to its connection: its own word comes just before the writing."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith("Sending offset-commit"):
            asyncio.get_running_loop().call_soon(say, "commit sent")


async def run(tell: Callable[[Story], None], bootstrap: str, topic: str, ours: bool, well: bool) -> None:
    story, told = Story(bootstrap, topic, ours, well), asyncio.Event()
    tell(story)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    stops: list[asyncio.Task[None]] = []
    agent = next(iter(story.app.agents.values()))
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGUSR1, lambda: stops.append(asyncio.create_task(agent.stop()))
    )
    await story.app.start()
    say("ready")
    while not told.is_set() and not story.app.should_stop:
        await story.app.consumer.commit()
        say("commit")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(told.wait(), 0.1)
    await story.app.stop()
    say("stopped")


def main() -> None:
    trap, kind, bootstrap, topic, *well = sys.argv[1:]
    coordinator = logging.getLogger("aiokafka.consumer.group_coordinator")
    coordinator.setLevel(logging.DEBUG)
    coordinator.propagate = False
    coordinator.addHandler(TellCommits())
    tell: Callable[[Story], None] = globals()[f"{trap}_{kind}"]
    asyncio.run(run(tell, bootstrap, topic, kind == "ours", bool(well)))


if __name__ == "__main__":
    main()
