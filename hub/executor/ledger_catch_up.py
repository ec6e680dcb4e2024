"""What a ledger has forgotten: one that is new, restored from a backup, or a standby that lacked the last commits. The log has it.

Such a ledger would give sequences again that readers have seen, so that its events were dropped as repeats, and it would do
again what was done. So before anything is sent, what the log holds behind the ledger's last sequences is taken in as published,
commands that the log says are done are done, and every other one that waits is looked up first, as after a crash in the middle.
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
from hub.executor.selection import TIMER
from hub.kit.connector import RateLimits
from hub.ledger import commands, identity, links, outbox, parked, positions, timers
from hub.ledger.ledger import Ledger
from hub.ledger.log_match import KnownLog, Match, match
from hub.log.event_log import EventLog, Record
from hub.log.outbox_in_log import latest_outbox, since, tails
from hub.log.sequences import numbered, own_bytes
from hub.runtime.clock import Clock
from hub.runtime.watchdog import beat
from schemas.decoding import RecordedEvent, read
from schemas.envelope import OUTSIDE, format_time, instance_of, parse_time
from schemas.topics import COMMANDS

log = structlog.get_logger(__name__)
AGAIN = 0.2
"""Seconds until another look at how far a program is that takes the same commands in."""


class LedgerCatchUp:
    """`make_sure` is for any thread that is about to act on the ledger; it costs nothing while no connection has broken."""

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
        """Whether the ledger is known to lack something, and is being taught it."""
        self._sure_after = -1

    @property
    def is_sure(self) -> bool:
        """Whether no connection has broken since. Asked in a transaction, it holds for that transaction."""
        return self._sure_after == self._ledger.outages

    def make_sure(self) -> None:
        """Return once the ledger knows what the log holds of it. Raises RetryableError while one of them is away."""
        if self.is_sure:
            return
        with self._turn():
            outages = self._ledger.outages
            if self._sure_after != outages:
                try:
                    self._look()
                finally:
                    self.is_behind = False
                self._sure_after = outages

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """One thread looks, the others wait: however long that takes, it is that one's headway that counts."""
        while not self._lock.acquire(timeout=AGAIN):
            beat()
        try:
            yield
        finally:
            self._lock.release()

    def leave(self) -> None:
        """The program ends: who is in `make_sure` is told to try again."""
        self._leaving.set()

    def _look(self) -> None:
        self._find_predecessor()
        self._settle_log()
        with self._ledger.reading() as conn:
            before = outbox.sequence_ends(conn)
        there = tails(self._events, self._ledger.outbox_id, before)
        with self._ledger.reading() as conn:  # behind it: a relay gives a sequence before it sends it
            given, another = outbox.sequence_ends(conn), identity.is_another_history(conn)
        behind = {p: given.get(p, 0) for p, last in there.items() if last > given.get(p, 0)}
        if behind or another:
            self.is_behind = True
            missing = sum(there[p] - last for p, last in behind.items())
            error = HubError("HUB-E5007", events=missing)
            log.warning("ledger.behind", **error.fields())
            self._doubt_commands()
            for records in since(self._events, self._ledger.outbox_id, behind, there):
                self._ledger.writer.run(functools.partial(remember, records=records, at=self._now()))
            log.info("ledger.caught_up", events=missing)
        self._ledger.writer.run(identity.note_history)

    def _settle_log(self) -> None:
        """Make sure that this is the ledger's log, and have it given again what it lacks of what it had.

        Raises FatalError for another log: what the ledger has as published would be missing there.
        """
        with self._ledger.reading() as conn:
            known = KnownLog.of(conn)
        found = match(self._events, known)
        error = found.error()
        if isinstance(error, FatalError):
            raise error
        if error is not None:
            log.warning("log.behind", **error.fields())
        commands_log, starts = self._events.identity(COMMANDS.name), self._events.starts(COMMANDS.name)
        self._ledger.writer.run(lambda conn: settle_log(conn, found, commands_log, starts))

    def _find_predecessor(self) -> None:
        """A new ledger takes the place of the one whose events the log holds: it is its backup from before the first event."""
        with self._ledger.reading() as conn:
            is_new = not outbox.sequence_ends(conn)
        name = latest_outbox(self._events) if is_new else None
        if name is not None:
            # What hub.commands no longer keeps, a ledger that never read it need not look for.
            starts = self._events.starts(COMMANDS.name)
            self._ledger.writer.run(lambda conn: positions.begin(conn, READER, COMMANDS.name, starts))
        self._ledger.continue_outbox(name)

    def _doubt_commands(self) -> None:
        """Take in what was asked for meanwhile, and have all that waits looked up. Before the events: they tell what is done."""
        self._ledger.writer.run(self._doubt)
        ends = self._events.ends(COMMANDS.name)
        again = CommandConsumer(self._ledger, self._events, self._clock, new_owner(), lambda: None, self._doubt)
        try:
            while not self._is_read(ends):
                if self._leaving.is_set():
                    raise RetryableError("HUB-E5005")
                beat()  # another program may be reading them
                if not again.turn():
                    self._leaving.wait(AGAIN)
        finally:
            again.let_go()

    def _is_read(self, ends: Mapping[int, int]) -> bool:
        with self._ledger.reading() as conn:
            there = positions.of_reader(conn, READER, COMMANDS.name)
        return all(there.get(partition, 0) >= end for partition, end in ends.items())

    def _doubt(self, conn: Connection) -> None:
        for name in commands.instances(conn):
            commands.doubt(conn, name, format_time(self._clock.now() + self._settled(name)), self._now())

    def _settled(self, name: str) -> timedelta:
        """After how long a call that somebody has just begun there is over, and can be looked up."""
        limits = self._limits(name)
        return timedelta(seconds=limits.timeout + limits.settle)

    def _now(self) -> str:
        return format_time(self._clock.now())


def settle_log(conn: Connection, found: Match, commands_log: str, starts: Mapping[int, int]) -> None:
    """Note the log, and have events that it lacks relayed again; requests are then read from their first one.

    In one transaction: as long as anything is missing, the next look finds it again. A request that is known is passed over.
    """
    for partition, (last, published) in found.lacking.items():
        outbox.send_again(conn, partition, last, published)
    if found.lacking:
        identity.note_cut(conn, {partition: last for partition, (last, _) in found.lacking.items()})
    if found.lacking or identity.known(conn, identity.COMMANDS_LOG) not in (None, commands_log):
        positions.restart(conn, READER, COMMANDS.name, starts)
    for name, value in ((identity.LOG, found.seen), (identity.COMMANDS_LOG, commands_log)):
        if identity.known(conn, name) != value:
            identity.note(conn, name, value)


def remember(conn: Connection, records: Sequence[Record], at: str) -> None:
    """Take in events as the log has them, with what else the ledger notes of such events."""
    told = [found for found in map(_told, records) if found is not None]
    outbox.remember(conn, [_row(event, record) for record, event in told], at)
    objects = [event for _, event in told if event.source.startswith(OUTSIDE) or _made(event) is not None]
    cases = {ref: event.case for event in objects for ref in (event.case, event.subject)}
    if cases:
        links.link_all(conn, cases)
    ends = [end for end in (_end(event) for _, event in told) if end is not None]
    commands.conclude_all(conn, ends, at)
    parked.settle_all(conn, [(f"command/{command}", state.lower()) for command, state, _ in ends], at)
    for _, event in told:
        _keep_timer(conn, event)


def _told(record: Record) -> tuple[Record, RecordedEvent] | None:
    try:
        return record, read(record.value or b"")
    except ValidationError:
        return None  # not the relay's: a foreign hand has copied a number


def _row(event: RecordedEvent, record: Record) -> dict[str, Any]:
    return {
        "event_id": event.id,
        "instance": instance_of(event.source),
        "type": event.type,
        "subject": event.subject,
        "case_id": event.case,
        "body": own_bytes(record.value or b""),
        "recorded_at": event.recordedtime,
        "partition": record.partition,
        "sequence": (numbered(record.value) or ("", 0))[1],
    }


def _end(event: RecordedEvent) -> tuple[str, str, str | None] | None:
    """The command whose end the event tells of, its state and what it made; None when it tells of none."""
    command = event.causationid
    if command is None:
        return None
    if event.type == "hub.command.failed":
        return command, "DISCARDED", None
    return (command, "DONE", _made(event) or event.data.get("id")) if _is_result(event) else None


def _keep_timer(conn: Connection, event: RecordedEvent) -> None:
    """Set the timer that the event says was set; drop the one that it says has fired."""
    if event.type == "hub.timer.fired":
        timers.drop(conn, event.causationid or "")
    elif event.type == "hub.command.done" and event.data.get("type") == TIMER and _is_result(event):
        asked = _timer(event.data.get("arguments"))
        if asked is not None:
            timers.set_timer(conn, event.causationid or "", event.case, *asked)


def _timer(arguments: object) -> tuple[str, str] | None:
    """A timer's name and moment; None for what none was set by."""
    if not isinstance(arguments, Mapping) or not isinstance(arguments.get("at"), str):
        return None
    try:
        return str(arguments.get("name", "")), format_time(parse_time(arguments["at"]))
    except (ValueError, OverflowError):
        return None


def _is_result(event: RecordedEvent) -> bool:
    return event.causationid is not None and event.id == result_id(event.causationid)


def _made(event: RecordedEvent) -> str | None:
    """The id that the outside system gave to what a command made there."""
    if not _is_result(event) or event.type == "hub.command.done":
        return None
    return event.subject.split("/", 2)[2]
