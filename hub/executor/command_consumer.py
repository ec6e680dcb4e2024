"""Consumes `hub.commands` into the ledger: the commands, events and parked events of a batch and its offsets in one transaction.

A record of `hub.commands` is a command, an event that the processor derived, or a notice about a parked event.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
import structlog
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from sqlalchemy import Connection

from hub.coordination import Lease
from hub.errors import FatalError, RetryableError
from hub.executor import command_events
from hub.ledger import commands, identity, outbox, parked, positions
from hub.ledger.ledger import Ledger
from hub.ledger.positions import Position
from hub.log.event_log import EventLog, Reader, Record
from hub.runtime.clock import Clock
from hub.runtime.failpoints import failpoint
from schemas.envelope import HUB_INSTANCE, Command, Event, Frozen, format_time
from schemas.topics import COMMANDS


def _decode_base64(text: object) -> bytes:
    return b64decode(text if isinstance(text, str) else b"=", validate=True)


class DerivedEvent(Frozen):
    """An event that the processor derived from others: it enters the log by the outbox, as all events do."""

    record: Literal["event"]
    event: Event


class ParkedNotice(Frozen):
    """An event that the processor could not fold."""

    record: Literal["parked"]
    ref: str
    kind: Literal["event"] = "event"
    case_id: str | None = None
    subject: str | None = None
    code: str
    seen: dict[str, Any] = Field(default_factory=dict)
    place: str | None = None
    rule: str | None = None
    mark: int | None = None
    body: Annotated[bytes, BeforeValidator(_decode_base64)]


class SettledNotice(Frozen):
    """A parked event was folded after all, or was discarded."""

    record: Literal["settled"]
    ref: str
    state: Literal["done", "discarded"]


@dataclass(frozen=True)
class UnreadableRecord:
    """A record that is none of these, and why."""

    reason: str


ProcessorRecord = DerivedEvent | ParkedNotice | SettledNotice
Message = Command | ProcessorRecord | UnreadableRecord
_PROCESSOR_RECORD: TypeAdapter[ProcessorRecord] = TypeAdapter(Annotated[ProcessorRecord, Field(discriminator="record")])


def parse_message(record: Record) -> Message:
    """Decode a record; never raises for what it contains."""
    try:
        value = orjson.loads(record.value or b"")
        if isinstance(value, dict) and "record" in value:
            return _PROCESSOR_RECORD.validate_python(value)
        return Command.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return UnreadableRecord(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    except ValueError as error:
        return UnreadableRecord(str(error))


log = structlog.get_logger(__name__)
READER = "executor"
LEASE_NAME = "commands"
LEASE_S, RENEW_INTERVAL_S = 15.0, 5.0
"""Seconds that the lease lasts, and after which it is renewed. They only affect delay: the epoch guarantees correctness."""
MAX_BATCH = 500
"""Records in one transaction, at most."""
POLL_WAIT_S = 0.5
"""Seconds to wait for a record before checking whether to stop."""
FENCED = "HUB-E5004"


@dataclass
class CommandConsumer:
    """Consumes while it holds the lease, else waits for it. `accepted` is called after each commit."""

    ledger: Ledger
    log: EventLog
    clock: Clock
    owner: str
    accepted: Callable[[], None]
    on_batch: Callable[[Connection], None] | None = None
    """Called in the transaction of each batch, after its commands."""
    _reader: Reader | None = None
    _positions: dict[int, Position] = field(default_factory=dict)
    _renewed: float = float("-inf")
    _doubt_until: str | None = None

    def __post_init__(self) -> None:
        self._lease = Lease(LEASE_NAME, self.clock, LEASE_S, self.owner)

    def turn(self) -> bool:
        """Consume one batch, waiting up to `POLL_WAIT_S` for it; False when another program holds the lease.

        Raises RetryableError while log or ledger is away, FatalError when commands were lost before they were read.
        """
        try:
            if not self._holds_lease():
                self.drop()
                return False
            batch = self._open().read(MAX_BATCH, POLL_WAIT_S)
            if batch:
                self._consume(batch)
        except FatalError as error:
            self.drop()
            if error.code != FENCED:
                raise
            log.info("commands.taken_over", reader=READER)
            return False
        except BaseException:
            self.drop()  # records that were read and not committed are read again
            raise
        return True

    def drop(self) -> None:
        """Stop reading; the next turn starts from what was committed."""
        if self._reader is not None:
            self._reader.close()
        self._reader, self._renewed = None, float("-inf")

    def release(self) -> None:
        """Release the lease, so that another program takes over at once."""
        self.drop()
        self.ledger.writer.run(self._lease.let_go)

    def _holds_lease(self) -> bool:
        now = self.clock.monotonic()
        if now - self._renewed < RENEW_INTERVAL_S:
            return True
        if not self.ledger.writer.run(self._lease.mine):
            return False
        self._renewed = now
        return True

    def _open(self) -> Reader:
        if self._reader is None:
            ends, starts = self.log.ends(COMMANDS.name), self.log.starts(COMMANDS.name)
            self._positions = self.ledger.writer.run(lambda conn: self._claim(conn, ends, starts))
            with self.ledger.reading() as conn:
                self._doubt_until = identity.get_value(conn, identity.DOUBT)
            self._reader = self.log.reader(
                COMMANDS.name, {p: position.next_offset for p, position in self._positions.items()}
            )
        return self._reader

    def _claim(self, conn: Connection, ends: Mapping[int, int], starts: Mapping[int, int]) -> dict[int, Position]:
        """Claim every partition. A log that ends before the committed offset is another log: all of it is read again."""
        claimed = {p: positions.claim(conn, READER, COMMANDS.name, p) for p in sorted(ends)}
        if any(position.next_offset > ends[p] for p, position in claimed.items()):
            log.warning("commands.read_again", topic=COMMANDS.name)
            positions.restart(conn, READER, COMMANDS.name, starts)
            claimed = {p: positions.claim(conn, READER, COMMANDS.name, p) for p in sorted(ends)}
        return claimed

    def _consume(self, batch: Sequence[Record]) -> None:
        try:
            self._positions = self.ledger.writer.run(lambda conn: self._accept(conn, batch, one_by_one=False))
        except (RetryableError, FatalError):
            raise
        except Exception:
            # The database refuses something in a record: write record by record, so that only that one is parked.
            self._positions = self.ledger.writer.run(lambda conn: self._accept(conn, batch, one_by_one=True))
        failpoint("executor.accepted")
        self.accepted()

    def _accept(self, conn: Connection, batch: Sequence[Record], one_by_one: bool) -> dict[int, Position]:
        if one_by_one:
            for record in batch:
                self._write_safely(conn, record)
        else:
            self._write(conn, [(record, parse_message(record)) for record in batch])
        if self.on_batch is not None:
            self.on_batch(conn)
        return positions.advance(conn, self._positions, {record.partition: record.offset + 1 for record in batch})

    def _write_safely(self, conn: Connection, record: Record) -> None:
        try:
            with conn.begin_nested():
                self._write(conn, [(record, parse_message(record))])
        except (RetryableError, FatalError):
            raise
        except Exception as error:
            self._write(conn, [(record, UnreadableRecord(type(error).__name__))])

    def _write(self, conn: Connection, messages: Sequence[tuple[Record, Message]]) -> None:
        """Write commands in their order, then the events in theirs, then the changes to parked events."""
        now = self.clock.now()
        requests = [(message, record.value or b"") for record, message in messages if isinstance(message, Command)]
        new = commands.accept_all(conn, requests, format_time(now), self._doubt_until)
        events = [_resulting_event(message, new, now) for _, message in messages]
        outbox.record(conn, [event for event in events if event is not None], HUB_INSTANCE)
        for record, message in messages:
            _update_parked(conn, record, message, format_time(now))


def _resulting_event(message: Message, new: frozenset[str], now: datetime) -> Event | None:
    """The event that a message leads to, if any."""
    match message:
        case Command() as command if command.type == "task.create" and command.id in new:
            return command_events.requested(command, now)
        case DerivedEvent(event=event):
            return event.model_copy(update={"recordedtime": format_time(now)})
    return None


def _update_parked(conn: Connection, record: Record, message: Message, at: str) -> None:
    match message:
        case ParkedNotice() as notice:
            parked.park(conn, {**notice.model_dump(exclude={"record"}), "parked_at": at})
        case SettledNotice() as notice:
            parked.settle(conn, notice.ref, notice.state, at)
        case UnreadableRecord(reason=reason):
            parked.park(conn, _unreadable(record, reason, at))


def _unreadable(record: Record, reason: str, at: str) -> dict[str, object]:
    where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    return {
        "ref": f"record/{record.topic}/{record.partition}/{record.offset}",
        "kind": "command",
        "code": "HUB-E4060",
        "seen": {**where, "reason": reason},
        "body": record.value or b"",
        "parked_at": at,
    }
