"""After a restore or failover the ledger catches up from the log: one that is new, restored from a backup, or a lagging standby.

Such a ledger would assign sequences again that readers have seen, so that they would drop its events as repeats, and it would
carry out commands again. So before anything is sent, the log's events after the ledger's last sequences are inserted as
published, the commands with a result in the log become DONE, and every other waiting command is looked up first, as after a
crash during its call.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy import Connection

from hub.coordination import new_owner
from hub.errors import FatalError, HubError, RetryableError
from hub.executor.command_consumer import READER, CommandConsumer
from hub.executor.command_events import result_id
from hub.executor.selection import TIMER_TYPE
from hub.kit.connector import RateLimits
from hub.ledger import commands, identity, links, outbox, parked, positions, timers
from hub.ledger.ledger import Ledger
from hub.ledger.log_match import KnownLog, Match, match
from hub.log.event_log import EventLog, Record
from hub.log.outbox_in_log import latest_outbox, records_since, tails
from hub.log.sequences import sequence_of, without_sequence
from hub.runtime.clock import Clock
from hub.runtime.watchdog import beat
from schemas.decoding import RecordedEvent, read
from schemas.envelope import CONNECTOR_SOURCE, format_time, instance_of, parse_time
from schemas.topics import COMMANDS

log = structlog.get_logger(__name__)
RETRY_DELAY_S = 0.2
"""Seconds until the next check of how far another program is that consumes the same commands."""


class LedgerCatchUp:
    """Any thread calls `make_sure` before it acts on the ledger; that costs nothing while no connection has broken."""

    def __init__(
        self,
        ledger: Ledger,
        events: EventLog,
        clock: Clock,
        limits: Callable[[str], RateLimits] = lambda instance: RateLimits(),
    ) -> None:
        self._ledger, self._events, self._clock, self._limits = ledger, events, clock, limits
        self._lock, self._leaving = threading.Lock(), threading.Event()
        self.is_behind = False
        """Whether the ledger is known to lack events and is catching up."""
        self._sure_after = -1

    @property
    def is_sure(self) -> bool:
        """Whether no connection has broken since the last check. Read in a transaction, it holds for that transaction."""
        return self._sure_after == self._ledger.outages

    def make_sure(self) -> None:
        """Return once the ledger has caught up with the log. Raises RetryableError while one of them is away."""
        if self.is_sure:
            return
        with self._turn():
            outages = self._ledger.outages
            if self._sure_after != outages:
                try:
                    self._check_ledger()
                finally:
                    self.is_behind = False
                self._sure_after = outages

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """One thread catches up, the others wait and report progress to the watchdog, however long that takes."""
        while not self._lock.acquire(timeout=RETRY_DELAY_S):
            beat()
        try:
            yield
        finally:
            self._lock.release()

    def leave(self) -> None:
        """The program ends: threads in `make_sure` get a RetryableError."""
        self._leaving.set()

    def _check_ledger(self) -> None:
        self._find_predecessor()
        self._settle_log()
        with self._ledger.reading() as conn:
            before = outbox.sequence_ends(conn)
        log_ends = tails(self._events, self._ledger.outbox_id, before)
        with (
            self._ledger.reading() as conn
        ):  # after the log's ends: a relay assigns a sequence before it sends the event
            ledger_ends, is_another_history = outbox.sequence_ends(conn), identity.is_another_history(conn)
        behind = {p: ledger_ends.get(p, 0) for p, last in log_ends.items() if last > ledger_ends.get(p, 0)}
        if behind or is_another_history:
            self.is_behind = True
            missing = sum(log_ends[p] - last for p, last in behind.items())
            error = HubError("HUB-E5007", events=missing)
            log.warning("ledger.behind", **error.fields())
            self._doubt_commands()
            for records in records_since(self._events, self._ledger.outbox_id, behind, log_ends):
                self._ledger.writer.run(functools.partial(remember, records=records, at=self._now()))
            log.info("ledger.caught_up", events=missing)
        self._ledger.writer.run(identity.note_history)

    def _settle_log(self) -> None:
        """Check that this is the ledger's log, and have the relay resend the published events that it has lost.

        Raises FatalError for another log: the events that the ledger counts as published would be missing there.
        """
        with self._ledger.reading() as conn:
            known = KnownLog.of(conn)
        log_match = match(self._events, known)
        error = log_match.error()
        if isinstance(error, FatalError):
            raise error
        if error is not None:
            log.warning("log.behind", **error.fields())
        commands_log, starts = self._events.identity(COMMANDS.name), self._events.starts(COMMANDS.name)
        self._ledger.writer.run(lambda conn: settle_log(conn, log_match, commands_log, starts))

    def _find_predecessor(self) -> None:
        """A new ledger continues the outbox whose events are in the log, as a backup from before the first event would."""
        with self._ledger.reading() as conn:
            is_new = not outbox.sequence_ends(conn)
        name = latest_outbox(self._events) if is_new else None
        if name is not None:
            # A ledger that never read hub.commands starts at its first retained record.
            starts = self._events.starts(COMMANDS.name)
            self._ledger.writer.run(lambda conn: positions.begin(conn, READER, COMMANDS.name, starts))
        self._ledger.continue_outbox(name)

    def _doubt_commands(self) -> None:
        """Consume newer commands and mark all waiting ones for lookup. Runs before the events, which show what is done."""
        self._ledger.writer.run(self._doubt)
        ends = self._events.ends(COMMANDS.name)
        consumer = CommandConsumer(self._ledger, self._events, self._clock, new_owner(), lambda: None, self._doubt)
        try:
            while not self._is_read(ends):
                if self._leaving.is_set():
                    raise RetryableError("HUB-E5005")
                beat()  # another program may be consuming them
                if not consumer.turn():
                    self._leaving.wait(RETRY_DELAY_S)
        finally:
            consumer.release()

    def _is_read(self, ends: Mapping[int, int]) -> bool:
        with self._ledger.reading() as conn:
            log_ends = positions.of_reader(conn, READER, COMMANDS.name)
        return all(log_ends.get(partition, 0) >= end for partition, end in ends.items())

    def _doubt(self, conn: Connection) -> None:
        for name in commands.instances(conn):
            commands.mark_doubtful(conn, name, format_time(self._clock.now() + self._settled(name)), self._now())

    def _settled(self, name: str) -> timedelta:
        """The time after which a call that another executor has just begun has surely ended and can be looked up."""
        limits = self._limits(name)
        return timedelta(seconds=limits.timeout + limits.settle)

    def _now(self) -> str:
        return format_time(self._clock.now())


def settle_log(conn: Connection, log_match: Match, commands_log: str, starts: Mapping[int, int]) -> None:
    """Store the log's identity, and have the events that it lacks resent; commands are then consumed from the first one.

    In one transaction: while anything is missing, the next check finds it again. A command that is known already is skipped.
    """
    for partition, (last, published) in log_match.lacking.items():
        outbox.resend(conn, partition, last, published)
    if log_match.lacking:
        identity.note_cut(conn, {partition: last for partition, (last, _) in log_match.lacking.items()})
    if log_match.lacking or identity.get_value(conn, identity.COMMANDS_LOG) not in (None, commands_log):
        positions.restart(conn, READER, COMMANDS.name, starts)
    for name, value in ((identity.LOG, log_match.seen), (identity.COMMANDS_LOG, commands_log)):
        if identity.get_value(conn, name) != value:
            identity.set_value(conn, name, value)


def remember(conn: Connection, records: Sequence[Record], at: str) -> None:
    """Insert events as the log has them, with the links, commands, parked commands and timers that follow from them."""
    recorded = [parsed for parsed in map(_recorded_event, records) if parsed is not None]
    outbox.insert_from_log(conn, [_row(event, record) for record, event in recorded], at)
    objects = [
        event for _, event in recorded if event.source.startswith(CONNECTOR_SOURCE) or _created_id(event) is not None
    ]
    cases = {ref: event.case for event in objects for ref in (event.case, event.subject)}
    if cases:
        links.link_all(conn, cases)
    ends = [end for end in (_command_end(event) for _, event in recorded) if end is not None]
    commands.conclude_all(conn, ends, at)
    parked.settle_all(conn, [(f"command/{command}", state.lower()) for command, state, _ in ends], at)
    for _, event in recorded:
        _update_timer(conn, event)


def _recorded_event(record: Record) -> tuple[Record, RecordedEvent] | None:
    try:
        return record, read(record.value or b"")
    except ValidationError:
        return None  # not the relay's: a duplicate sequence from a foreign producer


def _row(event: RecordedEvent, record: Record) -> dict[str, Any]:
    return {
        "event_id": event.id,
        "instance": instance_of(event.source),
        "type": event.type,
        "subject": event.subject,
        "case_id": event.case,
        "body": without_sequence(record.value or b""),
        "recorded_at": event.recordedtime,
        "partition": record.partition,
        "sequence": (sequence_of(record.value) or ("", 0))[1],
    }


def _command_end(event: RecordedEvent) -> tuple[str, str, str | None] | None:
    """The command that the event ends, its state and the id it created; None for an event that ends none."""
    command = event.causationid
    if command is None:
        return None
    if event.type == "hub.command.failed":
        return command, "DISCARDED", None
    return (command, "DONE", _created_id(event) or event.data.get("id")) if _is_result(event) else None


def _update_timer(conn: Connection, event: RecordedEvent) -> None:
    """Set the timer that the event reports as set; drop the one that it reports as fired."""
    if event.type == "hub.timer.fired":
        timers.drop(conn, event.causationid or "")
    elif event.type == "hub.command.done" and event.data.get("type") == TIMER_TYPE and _is_result(event):
        timer = _timer(event.data.get("arguments"))
        if timer is not None:
            timers.set_timer(conn, event.causationid or "", event.case, *timer)


def _timer(arguments: object) -> tuple[str, str] | None:
    """A timer's name and due time; None for arguments that set none."""
    if not isinstance(arguments, Mapping) or not isinstance(arguments.get("at"), str):
        return None
    try:
        return str(arguments.get("name", "")), format_time(parse_time(arguments["at"]))
    except (ValueError, OverflowError):
        return None


def _is_result(event: RecordedEvent) -> bool:
    return event.causationid is not None and event.id == result_id(event.causationid)


def _created_id(event: RecordedEvent) -> str | None:
    """The outside system's id of the object that a command created there."""
    if not _is_result(event) or event.type == "hub.command.done":
        return None
    return event.subject.split("/", 2)[2]
