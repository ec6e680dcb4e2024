"""The Faust app: one agent on `hub.events`, a partition's chunks in order, partitions beside each other."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import faust
import structlog
from faust.types import TP, StreamT
from mode.supervisors import CrashingSupervisor

from hub.engine.step import Derive, StepRules
from hub.errors import FatalError, RejectedError, RetryableError
from hub.log.event_log import EventLog, LogWriter, Outgoing, Stored, read_to_end, records_at
from hub.log.sequences import Loss, ReadPosition, follow, history, numbered, passed_over
from hub.processor import GROUP
from hub.processor.case_expiry import before
from hub.processor.folding import Folding, fold_chunk
from hub.processor.forgotten_cases import folded_again, pieces, read_again, returning
from hub.processor.halting import (
    EXIT_STALLED,
    LOOP_PATIENCE,
    PATIENCE,
    EventLoopWatchdog,
    FailureRun,
    Halts,
    Watchdog,
    guard,
    monotonic,
)
from hub.processor.rules_in_force import Judged
from hub.processor.source import Chunk, ChunkConsumer, ChunkTransport, PartitionThreads, faust_broker
from hub.processor.stale_writes import EVERY, StaleWrites
from hub.processor.state import PartitionState, catch_up
from hub.runtime.failpoints import failpoint
from hub.runtime.watchdog import exit_now
from schemas.envelope import Event
from schemas.topics import EVENTS, PARTITIONS

DELIVERY_SECONDS = 130.0
"""A little more than librdkafka's own time-out: by then a record is in the log or never will be."""
HANDING_OVER = 8.0
"""Seconds that the others wait for a chunk in hand when partitions are shared out anew: less than the session's length."""

FORGOTTEN_AT_ONCE = 5000
"""Records of state that end or are replaced in one go, as cases are forgotten; the rest waits for the next chunk."""

log = structlog.get_logger("hub.processor")


@dataclass
class Processor:
    """What one worker works with; `judged` says which rules judge which records."""

    events: EventLog
    judged: Judged
    writer: LogWriter
    ready: Callable[[], None] = lambda: None
    """Called whenever the state of newly assigned partitions has been read."""
    learn_rules: Callable[[], None] = lambda: None
    """Reads what the log has told of rules since; blocks. Called before partitions are judged that were just assigned."""
    forgets: timedelta | None = None
    """How long a case has been over when it is forgotten; None: none ever is."""
    states: dict[int, PartitionState] = field(default_factory=dict)
    failures: FailureRun = field(default_factory=FailureRun)
    lanes: PartitionThreads = field(default_factory=PartitionThreads)
    halts: Halts = field(init=False)
    late: dict[int, StaleWrites] = field(default_factory=dict)
    _restored: asyncio.Future[None] | None = None

    def __post_init__(self) -> None:
        self.halts = Halts(self.events, self.writer, self._go_on)

    async def run(self, chunk: Chunk) -> None:
        """Fold a chunk, deliver its outputs, then its states, and call it done; stop its partition before a loss in it."""
        with guard(chunk):
            if self._restored is not None:
                await asyncio.shield(self._restored)
            if not self.halts.set_aside(chunk):
                loss = await self._whole(chunk)
                if loss is not None:
                    self.halts.begin(loss, chunk)

    async def _go_on(self, chunk: Chunk) -> Loss | None:
        """Fold a chunk that was set aside."""
        with guard(chunk):
            return await self._whole(chunk)

    async def _whole(self, chunk: Chunk) -> Loss | None:
        """Fold a chunk as far as it follows on what was folded before; what is missing then, if anything is."""
        state, settled = self.states[chunk.partition], self.halts.offsets(chunk.partition)
        first = chunk.records[0].offset
        place = state.place
        if place is None:
            place = await self.lanes.run(None, self._first_place, state, first)
        if first > place.next_offset:
            loss = await self.lanes.run(None, self._passed_over, chunk.partition, place, settled)
            if loss is not None:
                return loss
        for piece in pieces(state, chunk.records):
            count, reached, loss = follow(place, piece, settled)
            await self._fold(Chunk(chunk.partition, piece[:count], 0), state, place, reached)
            place = reached
            if loss is not None:
                return loss
        chunk.done()
        return None

    async def _fold(self, chunk: Chunk, state: PartitionState, before: ReadPosition, place: ReadPosition) -> None:
        failpoint("worker.before-fold")
        if not chunk.records:
            return
        state.ahead = True
        back = await self._bring_back(chunk, state)
        folding = self._folding(chunk, state)
        for parked in folding.parked.values():
            log.warning("worker.parked", **parked.fields())
        await self._tell_rules(chunk.partition, self.judged.news(chunk.partition, chunk.records, before.sequences))
        await self._deliver(chunk.partition, folding.outputs)
        failpoint("worker.outputs-delivered")
        gone = self._forget(state)
        await self._deliver(chunk.partition, [*back, *folding.states, *gone, *state.keep_place(place)])
        failpoint("worker.states-delivered")
        state.ahead = False
        await self._overrule(chunk.partition)

    async def _bring_back(self, chunk: Chunk, state: PartitionState) -> list[Outgoing]:
        """Have the forgotten cases again of which a chunk brings news; the records that make the large ones last."""
        cases, partition = returning(state, chunk.records), chunk.partition
        if not cases:
            return []
        records = await self.lanes.run(None, read_again, self.events, partition, cases)

        def judge(records: Sequence[Stored]) -> list[tuple[Sequence[Stored], StepRules]]:
            return [(part.records, part.rules) for part in self.judged.again(partition, records)]

        found = folded_again(partition, records, judge, lambda offsets: self._reread(partition, offsets))
        log.info("worker.cases-back", partition=partition, cases=len(cases), records=len(records))
        failpoint("worker.cases-back")
        return state.bring_back(found, cases)

    def _forget(self, state: PartitionState) -> list[Outgoing]:
        """Forget what has been over for long enough, by the partition's clock."""
        if self.forgets is None or not (until := before(state.clock, self.forgets)):
            return []
        return state.forget(until, FORGOTTEN_AT_ONCE, functools.partial(self.judged.are_sure, state.partition))

    def _folding(self, chunk: Chunk, state: PartitionState) -> Folding:
        """Fold a chunk, each record by the rules that judge it. What failed when it was folded long ago is no new failure."""
        found: Folding | None = None
        for records, rules, live in self.judged.parts(chunk.partition, chunk.records):
            part = Chunk(chunk.partition, records, chunk.next_offset)
            folding = fold_chunk(part, state, rules, lambda offsets: self._reread(chunk.partition, offsets))
            if live and self.failures.note(folding.applied, folding.failed):
                log.error("worker.all-fail", **RejectedError("HUB-E6021", count=self.failures.length).fields())
            found = folding if found is None else found.and_then(folding)
        assert found is not None  # there is a record, and somebody judges it
        return found

    async def _tell_rules(self, partition: int, event: Event | None) -> None:
        """Have it in the log which rules judge, before anything is sent that they decided."""
        if event is not None:
            failpoint("worker.before-in-force")
            await self._deliver(partition, [Derive(event).record()])
            failpoint("worker.in-force")

    async def look_again(self) -> None:
        """Read what was written to the topic of states since the last look; a partition amid a chunk judges it after that."""
        for partition, words in list(self.late.items()):
            try:
                words.hear(await self.lanes.run(None, words.read, self.events))
            except RetryableError:
                return  # the log is away, and who has something to fold says so
            if self.late.get(partition) is words and not words.state.ahead:
                await self._overrule(partition)

    async def _overrule(self, partition: int) -> None:
        """Say again what a late word of another worker has overtaken, if there was a look."""
        words = self.late.get(partition)
        if words is None or words.unheard is None:
            return
        again = words.overruled()
        if again:
            log.warning("worker.overruled", partition=partition, records=len(again))
            await self._deliver(partition, again)

    def _first_place(self, state: PartitionState, first: int) -> ReadPosition:
        """Where a partition stands that kept no place: at its beginning, or where a version before this one has brought it."""
        if first == self.events.starts(EVENTS.name)[state.partition]:
            return ReadPosition()
        place, keyed = history(self.events, state.partition, first)
        if keyed and not state.cases:
            raise FatalError("HUB-E6023", partition=state.partition, offset=first)
        return place

    def _passed_over(self, partition: int, place: ReadPosition, settled: Container[int]) -> Loss | None:
        starts, ends = self.events.starts(EVENTS.name), self.events.ends(EVENTS.name)
        return passed_over(partition, place, starts[partition], ends[partition], settled)

    async def _deliver(self, partition: int, records: Sequence[Outgoing]) -> None:
        if records:
            await self.lanes.run(partition, self.writer.append, records, DELIVERY_SECONDS)

    def _reread(self, partition: int, offsets: Sequence[int]) -> list[bytes]:
        """The bytes of parked events, from the log. Rare, and blocking: it is a person who asked for it."""
        return records_at(self.events, EVENTS.name, partition, offsets)

    async def leave_off(self) -> None:
        """Let the chunks in hand come to their end, if they do soon: what they send must not come after the next owner's.

        To be called when partitions are taken away, and no more chunks are handed out.
        """
        self.halts.drop()
        deadline = monotonic() + HANDING_OVER
        while any(state.ahead for state in self.states.values()) and monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # a chunk has nobody to tell

    def assigned(self, partitions: set[int]) -> None:
        """Take partitions over: no chunk of them is folded before their state has been read to its end.

        State of partitions that others have now is forgotten; what is kept is read on from where it was.
        """
        self.halts.drop()
        self.late = {}
        self.states = {partition: self.states.get(partition) or PartitionState(partition) for partition in partitions}
        self._restored = asyncio.ensure_future(self._restore(self.states))

    async def _restore(self, states: Mapping[int, PartitionState]) -> None:
        # A chunk whose agent was cancelled may still be on its way to the log; what it sends must not come after the next.
        for partition in states:
            await self.lanes.run(partition, lambda: None)
        started = monotonic()
        count = await self.lanes.run(None, catch_up, self.events, states)
        losses, told = await self.lanes.run(None, self._looked, states)
        for loss in losses:
            self.halts.begin(loss)
        if told:
            await self.lanes.run(None, self.writer.append, told, DELIVERY_SECONDS)
        self.late = {partition: StaleWrites(state, state.read_to, {}) for partition, state in states.items()}
        log.info("worker.state-read", partitions=len(states), records=count, seconds=round(monotonic() - started, 3))
        self.ready()

    def _looked(self, states: Mapping[int, PartitionState]) -> tuple[list[Loss], list[Outgoing]]:
        """Of the partitions just read: what their log has lost, and what it must be told of the rules before they are folded."""
        starts, ends = self.events.starts(EVENTS.name), self.events.ends(EVENTS.name)
        self.learn_rules()
        losses, news = [], []
        for partition, state in states.items():
            if state.place is not None:
                losses.append(passed_over(partition, state.place, starts[partition], ends[partition]))
            after = functools.partial(self._numbers_before, partition, ends[partition])
            news.append(self.judged.assigned(partition, state.folded, ends[partition], after))
        told = [Derive(event).record() for event in news if event is not None]
        return [loss for loss in losses if loss is not None], told

    def _numbers_before(self, partition: int, offset: int) -> dict[str, int]:
        """The outbox and the sequence of the record before an offset; nothing where it has none."""
        for batch in read_to_end(self.events, EVENTS.name, {partition: max(0, offset - 1)}, limit=1):
            told = numbered(batch[0].value)
            return {} if told is None else {told[0]: told[1]}
        return {}


def make_app(
    processor: Processor,
    client: Mapping[str, Any],
    *,
    data: Path,
    instance: str,
    patience: float = PATIENCE,
    looks: float = EVERY,
) -> faust.App:
    """A Faust app on this broker, with the settings that the promises need. `looks`: seconds between two looks for late words.

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

    pulse = EventLoopWatchdog(max(patience, LOOP_PATIENCE))

    async def assigned(*given: Any, **_more: Any) -> None:
        pulse.start(asyncio.get_running_loop())
        processor.assigned({tp.partition for tp in given[1] if tp.topic == EVENTS.name})

    app.on_partitions_assigned.connect(assigned)

    async def revoked(*_given: Any, **_more: Any) -> None:
        await processor.leave_off()

    app.on_partitions_revoked.connect(revoked)
    processor.halts.pause = lambda partition: app.consumer.pause_partitions([TP(EVENTS.name, partition)])
    processor.halts.resume = lambda partition: app.consumer.resume_partitions([TP(EVENTS.name, partition)])
    watchdog = Watchdog(patience)

    async def watch() -> None:
        _watch(app, watchdog, processor.halts.partitions)

    app.timer(2.0)(watch)
    app.timer(looks)(processor.look_again)
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


def _watch(
    app: faust.App, watchdog: Watchdog, halted: Container[int] = (), leaving: Callable[[int], None] = exit_now
) -> None:
    """End a worker that has records waiting and commits nothing: another one, or this one restarted, will go on.

    A partition that is `halted` stands still on purpose, and no restart would help it.
    """
    consumer = app.consumer
    if not isinstance(consumer, ChunkConsumer):
        return
    mine = {tp for tp in consumer.assignment() if tp.topic == EVENTS.name and tp.partition not in halted}
    watchdog.forget(set(watchdog.since) - {tp.partition for tp in mine})
    for tp in mine:
        position, end = consumer._committed_offset[tp], consumer.highwater(tp)
        if end and watchdog.look(tp.partition, position or 0, end, monotonic()):
            log.error("worker.stalled", partition=tp.partition, committed=position, end=end)
            leaving(EXIT_STALLED)
