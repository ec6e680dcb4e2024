"""The Faust app: one agent on `hub.events` that folds a partition's chunks in order and partitions concurrently."""

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

from hub.engine.step import EmitEvent, StepRules
from hub.errors import FatalError, RejectedError, RetryableError
from hub.log.event_log import EventLog, LogWriter, Outgoing, StoredRecord, read_to_end, records_at
from hub.log.sequences import Loss, ReadPosition, follow, position_before, sequence_of, skipped_offsets
from hub.processor import GROUP
from hub.processor.case_expiry import expiry_cutoff
from hub.processor.folding import Folding, fold_chunk
from hub.processor.forgotten_cases import refold, reread_records, returning_cases, split_records
from hub.processor.halting import (
    EXIT_STALLED,
    LOOP_STALL_S,
    PARTITION_STALL_S,
    EventLoopWatchdog,
    FailureRun,
    PartitionHalts,
    PartitionWatchdog,
    guard,
    monotonic,
)
from hub.processor.rules_in_force import RuleSource
from hub.processor.source import Chunk, ChunkConsumer, ChunkTransport, PartitionThreads, faust_broker
from hub.processor.stale_writes import CHECK_INTERVAL_S, StaleWrites
from hub.processor.state import PartitionState, catch_up
from hub.runtime.failpoints import failpoint
from hub.runtime.watchdog import exit_now
from schemas.envelope import Event
from schemas.topics import EVENTS, PARTITIONS

DELIVERY_TIMEOUT_S = 130.0
"""Seconds; a little more than librdkafka's own time-out: by then a record is in the log or never will be."""
HANDOVER_TIMEOUT_S = 8.0
"""Seconds that a rebalance waits for the chunks in progress: less than the session time-out."""

MAX_FORGOTTEN_RECORDS = 5000
"""State records that forgetting cases replaces or deletes after one chunk; the rest waits for the next chunk."""

log = structlog.get_logger("hub.processor")


@dataclass
class Processor:
    """One worker: folds the chunks of its partitions. `rules` selects the rules that decide each record."""

    events: EventLog
    rules: RuleSource
    writer: LogWriter
    ready: Callable[[], None] = lambda: None
    """Called whenever the state of newly assigned partitions has been read."""
    learn_rules: Callable[[], None] = lambda: None
    """Reads the newer rule announcements in the log; blocks. Called before newly assigned partitions are folded."""
    forgets: timedelta | None = None
    """The time after its end at which a case is forgotten; None: never."""
    states: dict[int, PartitionState] = field(default_factory=dict)
    failures: FailureRun = field(default_factory=FailureRun)
    threads: PartitionThreads = field(default_factory=PartitionThreads)
    halts: PartitionHalts = field(init=False)
    stale_writes: dict[int, StaleWrites] = field(default_factory=dict)
    _restored: asyncio.Future[None] | None = None

    def __post_init__(self) -> None:
        self.halts = PartitionHalts(self.events, self.writer, self._fold_aside)

    async def run(self, chunk: Chunk) -> None:
        """Fold a chunk, deliver its outputs, then its states, then mark it done; halt its partition before a sequence gap in it."""
        with guard(chunk):
            if self._restored is not None:
                await asyncio.shield(self._restored)
            if not self.halts.set_aside(chunk):
                loss = await self._fold_chunk(chunk)
                if loss is not None:
                    self.halts.begin(loss, chunk)

    async def _fold_aside(self, chunk: Chunk) -> Loss | None:
        """Fold a chunk that was set aside."""
        with guard(chunk):
            return await self._fold_chunk(chunk)

    async def _fold_chunk(self, chunk: Chunk) -> Loss | None:
        """Fold a chunk up to the first sequence gap; return the gap, if there is one."""
        state, settled = self.states[chunk.partition], self.halts.offsets(chunk.partition)
        first = chunk.records[0].offset
        place = state.place
        if place is None:
            place = await self.threads.run(None, self._first_position, state, first)
        if first > place.next_offset:
            loss = await self.threads.run(None, self._skipped_gap, chunk.partition, place, settled)
            if loss is not None:
                return loss
        for piece in split_records(state, chunk.records):
            count, reached, loss = follow(place, piece, settled)
            await self._fold(Chunk(chunk.partition, piece[:count], 0), state, place, reached)
            place = reached
            if loss is not None:
                return loss
        chunk.done()
        return None

    async def _fold(self, chunk: Chunk, state: PartitionState, previous: ReadPosition, place: ReadPosition) -> None:
        failpoint("worker.before-fold")
        if not chunk.records:
            return
        state.ahead = True
        back = await self._bring_back(chunk, state)
        folding = self._folding(chunk, state)
        for parked in folding.parked.values():
            log.warning("worker.parked", **parked.fields())
        await self._announce_rules(chunk.partition, self.rules.news(chunk.partition, chunk.records, previous.sequences))
        await self._deliver(chunk.partition, folding.outputs)
        failpoint("worker.outputs-delivered")
        gone = self._forget(state)
        await self._deliver(chunk.partition, [*back, *folding.states, *gone, *state.keep_place(place)])
        failpoint("worker.states-delivered")
        state.ahead = False
        await self._rewrite_stale(chunk.partition)

    async def _bring_back(self, chunk: Chunk, state: PartitionState) -> list[Outgoing]:
        """Restore the forgotten cases that a chunk has new events of; return the state records of the large ones to send."""
        cases, partition = returning_cases(state, chunk.records), chunk.partition
        if not cases:
            return []
        records = await self.threads.run(None, reread_records, self.events, partition, cases)

        def with_rules(records: Sequence[StoredRecord]) -> list[tuple[Sequence[StoredRecord], StepRules]]:
            return [(part.records, part.rules) for part in self.rules.again(partition, records)]

        restored = refold(partition, records, with_rules, lambda offsets: self._reread(partition, offsets))
        log.info("worker.cases-back", partition=partition, cases=len(cases), records=len(records))
        failpoint("worker.cases-back")
        return state.bring_back(restored, cases)

    def _forget(self, state: PartitionState) -> list[Outgoing]:
        """Forget the cases that ended long enough ago, by the partition's clock."""
        if self.forgets is None or not (until := expiry_cutoff(state.clock, self.forgets)):
            return []
        return state.forget(until, MAX_FORGOTTEN_RECORDS, functools.partial(self.rules.are_sure, state.partition))

    def _folding(self, chunk: Chunk, state: PartitionState) -> Folding:
        """Fold a chunk, each record by the rules that decide it. Failures count only for records folded for the first time."""
        whole: Folding | None = None
        for records, rules, live in self.rules.parts(chunk.partition, chunk.records):
            part = Chunk(chunk.partition, records, chunk.next_offset)
            folding = fold_chunk(part, state, rules, lambda offsets: self._reread(chunk.partition, offsets))
            if live and self.failures.note(folding.applied, folding.failed):
                log.error("worker.all-fail", **RejectedError("HUB-E6021", count=self.failures.length).fields())
            whole = folding if whole is None else whole.and_then(folding)
        assert whole is not None  # there is a record, and rules decide it
        return whole

    async def _announce_rules(self, partition: int, event: Event | None) -> None:
        """Announce the rules in force in the log, before anything that they decided is sent."""
        if event is not None:
            failpoint("worker.before-in-force")
            await self._deliver(partition, [EmitEvent(event).record()])
            failpoint("worker.in-force")

    async def check_stale_writes(self) -> None:
        """Read the state topic's newer records and rewrite stale ones; a partition that folds a chunk does so after it."""
        for partition, writes in list(self.stale_writes.items()):
            try:
                writes.add(await self.threads.run(None, writes.read, self.events))
            except RetryableError:
                return  # the log is away; folding reports that
            if self.stale_writes.get(partition) is writes and not writes.state.ahead:
                await self._rewrite_stale(partition)

    async def _rewrite_stale(self, partition: int) -> None:
        """Write again the state and views that an expired worker has overwritten, if the topic was read since."""
        writes = self.stale_writes.get(partition)
        if writes is None or writes.pending is None:
            return
        rewrites = writes.rewrites()
        if rewrites:
            log.warning("worker.overruled", partition=partition, records=len(rewrites))
            await self._deliver(partition, rewrites)

    def _first_position(self, state: PartitionState, first: int) -> ReadPosition:
        """The read position of a partition without a stored one: its beginning, or how far an earlier version has folded it."""
        if first == self.events.starts(EVENTS.name)[state.partition]:
            return ReadPosition()
        place, keyed = position_before(self.events, state.partition, first)
        if keyed and not state.cases:
            raise FatalError("HUB-E6023", partition=state.partition, offset=first)
        return place

    def _skipped_gap(self, partition: int, place: ReadPosition, settled: Container[int]) -> Loss | None:
        starts, ends = self.events.starts(EVENTS.name), self.events.ends(EVENTS.name)
        return skipped_offsets(partition, place, starts[partition], ends[partition], settled)

    async def _deliver(self, partition: int, records: Sequence[Outgoing]) -> None:
        if records:
            await self.threads.run(partition, self.writer.append, records, DELIVERY_TIMEOUT_S)

    def _reread(self, partition: int, offsets: Sequence[int]) -> list[bytes]:
        """The bytes of parked events, from the log. Blocks; rare, since only a person's retry needs it."""
        return records_at(self.events, EVENTS.name, partition, offsets)

    async def hand_over(self) -> None:
        """Wait for the chunks in progress, up to `HANDOVER_TIMEOUT_S`: their records must not follow the next owner's.

        Called when partitions are revoked and no more chunks are handed out.
        """
        self.halts.drop()
        deadline = monotonic() + HANDOVER_TIMEOUT_S
        while any(state.ahead for state in self.states.values()) and monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # a chunk signals no one

    def assigned(self, partitions: set[int]) -> None:
        """Take partitions over: their chunks are folded once their state has been read to its end.

        State of partitions that other workers now own is dropped; the rest is read on from where it was.
        """
        self.halts.drop()
        self.stale_writes = {}
        self.states = {partition: self.states.get(partition) or PartitionState(partition) for partition in partitions}
        self._restored = asyncio.ensure_future(self._restore(self.states))

    async def _restore(self, states: Mapping[int, PartitionState]) -> None:
        # A cancelled agent's chunk may still be sending; its records must not follow those of the next chunk.
        for partition in states:
            await self.threads.run(partition, lambda: None)
        started = monotonic()
        count = await self.threads.run(None, catch_up, self.events, states)
        losses, outputs = await self.threads.run(None, self._inspect, states)
        for loss in losses:
            self.halts.begin(loss)
        if outputs:
            await self.threads.run(None, self.writer.append, outputs, DELIVERY_TIMEOUT_S)
        self.stale_writes = {partition: StaleWrites(state, state.read_to, {}) for partition, state in states.items()}
        log.info("worker.state-read", partitions=len(states), records=count, seconds=round(monotonic() - started, 3))
        self.ready()

    def _inspect(self, states: Mapping[int, PartitionState]) -> tuple[list[Loss], list[Outgoing]]:
        """For partitions just read: the gaps in their log, and the rule announcements to send before they are folded."""
        starts, ends = self.events.starts(EVENTS.name), self.events.ends(EVENTS.name)
        self.learn_rules()
        losses, events = [], []
        for partition, state in states.items():
            if state.place is not None:
                losses.append(skipped_offsets(partition, state.place, starts[partition], ends[partition]))
            after = functools.partial(self._sequences_before, partition, ends[partition])
            events.append(self.rules.assigned(partition, state.folded, ends[partition], after))
        outputs = [EmitEvent(event).record() for event in events if event is not None]
        return [loss for loss in losses if loss is not None], outputs

    def _sequences_before(self, partition: int, offset: int) -> dict[str, int]:
        """Outbox → sequence of the record before an offset; empty if it has none."""
        for batch in read_to_end(self.events, EVENTS.name, {partition: max(0, offset - 1)}, limit=1):
            sequence = sequence_of(batch[0].value)
            return {} if sequence is None else {sequence[0]: sequence[1]}
        return {}


def make_app(
    processor: Processor,
    client: Mapping[str, Any],
    *,
    data: Path,
    instance: str,
    patience: float = PARTITION_STALL_S,
    stale_check_s: float = CHECK_INTERVAL_S,
) -> faust.App:
    """A Faust app with the settings that the guarantees need. `stale_check_s`: seconds between two checks for stale writes.

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
        # A rebalance cancels the agents of revoked partitions; Faust would take the cancellation for a crash of the app.
        with contextlib.suppress(asyncio.CancelledError):
            async for chunk in stream:
                await processor.run(chunk)

    loop_watchdog = EventLoopWatchdog(max(patience, LOOP_STALL_S))

    async def assigned(*given: Any, **_more: Any) -> None:
        loop_watchdog.start(asyncio.get_running_loop())
        processor.assigned({tp.partition for tp in given[1] if tp.topic == EVENTS.name})

    app.on_partitions_assigned.connect(assigned)

    async def revoked(*_given: Any, **_more: Any) -> None:
        await processor.hand_over()

    app.on_partitions_revoked.connect(revoked)
    processor.halts.pause = lambda partition: app.consumer.pause_partitions([TP(EVENTS.name, partition)])
    processor.halts.resume = lambda partition: app.consumer.resume_partitions([TP(EVENTS.name, partition)])
    watchdog = PartitionWatchdog(patience)

    async def watch() -> None:
        _watch(app, watchdog, processor.halts.partitions)

    app.timer(2.0)(watch)
    app.timer(stale_check_s)(processor.check_stale_writes)
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
    """Faust and its libraries build DEBUG records that are never written: 11 % of the time of a plain app."""
    for name in ("faust", "aiokafka", "mode"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _watch(
    app: faust.App, watchdog: PartitionWatchdog, halted: Container[int] = (), leaving: Callable[[int], None] = exit_now
) -> None:
    """End a worker that has records waiting and commits nothing: another one, or this one restarted, continues.

    A partition that is `halted` stopped on purpose, and no restart would help it.
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
