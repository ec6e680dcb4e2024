"""The Faust app: one agent on `hub.events`, a partition's chunks in order, partitions beside each other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faust
import structlog
from faust.types import StreamT
from mode.supervisors import CrashingSupervisor

from hub.errors import FatalError
from hub.event_log import EventLog, Outgoing, Writer
from hub.failpoints import reach
from hub.step import Rules
from hub.worker import GROUP
from hub.worker.broker import faust_broker
from hub.worker.chunks import Chunk, ChunkConsumer, ChunkTransport
from hub.worker.folding import Folding, fold_chunk
from hub.worker.guard import EXIT_STALLED, PATIENCE, FailureRun, Watchdog, guard, leave, monotonic
from hub.worker.lanes import Lanes
from hub.worker.state import PartitionState, catch_up
from schemas.topics import EVENTS, PARTITIONS

DELIVERY_SECONDS = 130.0
"""A little more than librdkafka's own time-out: by then a record is in the log or never will be."""

log = structlog.get_logger("hub.worker")


@dataclass
class Processor:
    """What one worker works with; `rules` may be replaced while it runs, and holds from the next chunk on."""

    events: EventLog
    rules: Rules
    writer: Writer
    ready: Callable[[], None] = lambda: None
    """Called whenever the state of newly assigned partitions has been read."""
    states: dict[int, PartitionState] = field(default_factory=dict)
    failures: FailureRun = field(default_factory=FailureRun)
    lanes: Lanes = field(default_factory=Lanes)
    _restored: asyncio.Future[None] | None = None

    async def run(self, chunk: Chunk) -> Folding:
        """Fold a chunk, deliver its outputs, then its states, and call it done."""
        with guard(chunk):
            if self._restored is not None:
                await asyncio.shield(self._restored)
            state = self.states[chunk.partition]
            reach("worker.before-fold")
            state.ahead = True
            folding = fold_chunk(chunk, state, self.rules, lambda offsets: self._reread(chunk.partition, offsets))
            self.failures.note(folding.applied, folding.failed)
            await self._deliver(chunk.partition, folding.outputs)
            reach("worker.outputs-delivered")
            await self._deliver(chunk.partition, folding.states)
            reach("worker.states-delivered")
            state.ahead = False
            chunk.done()
        return folding

    async def _deliver(self, partition: int, records: Sequence[Outgoing]) -> None:
        if records:
            await self.lanes.run(partition, self.writer.append, records, DELIVERY_SECONDS)

    def _reread(self, partition: int, offsets: Sequence[int]) -> list[bytes]:
        """The bytes of parked events, from the log. Rare, and blocking: it is a person who asked for it."""
        return [_one(self.events, partition, offset) for offset in offsets]

    def assigned(self, partitions: set[int]) -> None:
        """Take partitions over: no chunk of them is folded before their state has been read to its end.

        State of partitions that others have now is forgotten; what is kept is read on from where it was.
        """
        self.states = {partition: self.states.get(partition) or PartitionState(partition) for partition in partitions}
        self._restored = asyncio.ensure_future(self._restore(self.states))

    async def _restore(self, states: Mapping[int, PartitionState]) -> None:
        # A chunk whose agent was cancelled may still be on its way to the log; what it sends must not come after the next.
        for partition in states:
            await self.lanes.run(partition, lambda: None)
        started = monotonic()
        count = await self.lanes.run(None, catch_up, self.events, states)
        log.info("worker.state-read", partitions=len(states), records=count, seconds=round(monotonic() - started, 3))
        self.ready()


def _one(events: EventLog, partition: int, offset: int) -> bytes:
    reader = events.reader(EVENTS.name, {partition: offset})
    try:
        for _ in range(30):
            for record in reader.read(1, 1.0):
                if record.offset == offset:
                    return record.value or b""
    finally:
        reader.close()
    raise FatalError("HUB-E6022", partition=partition, offset=offset)


def make_app(
    processor: Processor, client: Mapping[str, Any], *, data: Path, instance: str, patience: float = PATIENCE
) -> faust.App:
    """A Faust app on this broker, with the settings that the promises need.

    `instance` names this copy for good: one that restarts under its name within the session time-out causes no rebalance.
    """
    _quiet()
    broker, credentials = faust_broker(client)
    app = faust.App(
        GROUP,
        broker=broker,
        broker_credentials=credentials,
        datadir=data / "faust",
        consumer_group_instance_id=instance,
        **SETTINGS,
    )
    app.transport = ChunkTransport(app.conf.broker, app, loop=app.loop)
    events = app.topic(EVENTS.name, partitions=PARTITIONS, key_serializer="raw", value_serializer="raw")

    @app.agent(events, isolated_partitions=True)
    async def run_cases(stream: StreamT[Chunk]) -> None:
        # A partition that goes to another worker cancels its agent in the middle; Faust would take that for a crash of the app.
        with contextlib.suppress(asyncio.CancelledError):
            async for chunk in stream:
                await processor.run(chunk)

    async def assigned(*given: Any, **_more: Any) -> None:
        processor.assigned({tp.partition for tp in given[1] if tp.topic == EVENTS.name})

    app.on_partitions_assigned.connect(assigned)

    watchdog = Watchdog(patience)

    async def watch() -> None:
        _watch(app, watchdog)

    app.timer(2.0)(watch)
    return app


SETTINGS: Mapping[str, Any] = {
    "processing_guarantee": "at_least_once",
    "store": "memory://",
    "table_standby_replicas": 0,
    "topic_allow_declare": False,
    "topic_disable_leader": True,
    "web_enabled": False,
    "stream_buffer_maxsize": 8,  # counts chunks
    "broker_max_poll_records": 8000,  # when there is much to catch up: a case is read and written once a chunk
    "broker_commit_interval": 1.0,
    "broker_session_timeout": 10.0,
    "broker_heartbeat_interval": 3.0,
    "broker_max_poll_interval": 300.0,
    "agent_supervisor": CrashingSupervisor,
    "producer_acks": -1,
    "producer_linger": 0.02,
    "consumer_auto_offset_reset": "earliest",
    "stream_wait_empty": False,  # a chunk in flight at shut-down is folded again by the next worker
}


def _quiet() -> None:
    """Faust and its libraries build DEBUG records that nobody reads: 11 % of the time of a plain app."""
    for name in ("faust", "aiokafka", "mode"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _watch(app: faust.App, watchdog: Watchdog, leaving: Callable[[int], None] = leave) -> None:
    """End a worker that has records waiting and commits nothing: another one, or this one restarted, will go on."""
    consumer = app.consumer
    if not isinstance(consumer, ChunkConsumer):
        return
    mine = {tp for tp in consumer.assignment() if tp.topic == EVENTS.name}
    watchdog.forget(set(watchdog.since) - {tp.partition for tp in mine})
    for tp in mine:
        position, end = consumer._committed_offset[tp], consumer.highwater(tp)
        if end and watchdog.look(tp.partition, position or 0, end, monotonic()):
            log.error("worker.stalled", partition=tp.partition, committed=position, end=end)
            leaving(EXIT_STALLED)
