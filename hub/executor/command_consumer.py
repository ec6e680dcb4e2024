"""Takes what is asked for from `hub.commands` into the ledger: commands, events and positions in one transaction.

What a record of `hub.commands` says: a command, an event that the processor derived, or news of parked events.
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
from schemas.envelope import HUB, Command, Event, Frozen, format_time
from schemas.topics import COMMANDS


def _decoded(text: object) -> bytes:
    return b64decode(text if isinstance(text, str) else b"=", validate=True)


class Derived(Frozen):
    """An event that the processor made of others: it enters the log by the outbox, as all do."""

    record: Literal["event"]
    event: Event


class ParkedNews(Frozen):
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
    body: Annotated[bytes, BeforeValidator(_decoded)]


class SettledNews(Frozen):
    """A parked event went through in the end, or was given up."""

    record: Literal["settled"]
    ref: str
    state: Literal["done", "discarded"]


@dataclass(frozen=True)
class Unreadable:
    """Bytes that say none of this, and why."""

    reason: str


Note = Derived | ParkedNews | SettledNews
Message = Command | Note | Unreadable
_NOTE: TypeAdapter[Note] = TypeAdapter(Annotated[Note, Field(discriminator="record")])


def parse_message(record: Record) -> Message:
    """Read a record; never raises for what it holds."""
    try:
        value = orjson.loads(record.value or b"")
        if isinstance(value, dict) and "record" in value:
            return _NOTE.validate_python(value)
        return Command.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return Unreadable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    except ValueError as error:
        return Unreadable(str(error))


log = structlog.get_logger(__name__)
READER = "executor"
JOB = "commands"
LEASE, RENEW = 15.0, 5.0
"""Seconds that the job is held, and after which it is held anew. Only delay depends on them: correctness is the epoch's."""
MOST = 500
"""Records in one transaction."""
WAIT = 0.5
"""Seconds to wait for a record before looking whether to stop."""
FENCED = "HUB-E5004"


@dataclass
class CommandConsumer:
    """Reads while it holds the lease, else stands by. `accepted` hears of each commit."""

    ledger: Ledger
    log: EventLog
    clock: Clock
    owner: str
    accepted: Callable[[], None]
    take_note: Callable[[Connection], None] | None = None
    """What is to be done in the transaction of each batch, behind its commands."""
    _reader: Reader | None = None
    _held: dict[int, Position] = field(default_factory=dict)
    _renewed: float = float("-inf")
    _doubt: str | None = None

    def __post_init__(self) -> None:
        self._lease = Lease(JOB, self.clock, LEASE, self.owner)

    def turn(self) -> bool:
        """Take in what has come, waiting a moment for it; False when another program holds the job.

        Raises RetryableError while log or ledger is away, FatalError when commands were lost before they were read.
        """
        try:
            if not self._holds_lease():
                self.drop()
                return False
            batch = self._open().read(MOST, WAIT)
            if batch:
                self._take_in(batch)
        except FatalError as error:
            self.drop()
            if error.code != FENCED:
                raise
            log.info("commands.taken_over", reader=READER)
            return False
        except BaseException:
            self.drop()  # what was read and not committed is read again
            raise
        return True

    def drop(self) -> None:
        """Stop reading; the next turn starts from what was committed."""
        if self._reader is not None:
            self._reader.close()
        self._reader, self._renewed = None, float("-inf")

    def let_go(self) -> None:
        """Leave the job to another at once."""
        self.drop()
        self.ledger.writer.run(self._lease.let_go)

    def _holds_lease(self) -> bool:
        now = self.clock.monotonic()
        if now - self._renewed < RENEW:
            return True
        if not self.ledger.writer.run(self._lease.mine):
            return False
        self._renewed = now
        return True

    def _open(self) -> Reader:
        if self._reader is None:
            ends, starts = self.log.ends(COMMANDS.name), self.log.starts(COMMANDS.name)
            self._held = self.ledger.writer.run(lambda conn: self._claim(conn, ends, starts))
            with self.ledger.reading() as conn:
                self._doubt = identity.known(conn, identity.DOUBT)
            self._reader = self.log.reader(COMMANDS.name, {p: held.next_offset for p, held in self._held.items()})
        return self._reader

    def _claim(self, conn: Connection, ends: Mapping[int, int], starts: Mapping[int, int]) -> dict[int, Position]:
        """Take every partition over. Where the log ends before what was read, it is another: all of it is read once more."""
        held = {p: positions.claim(conn, READER, COMMANDS.name, p) for p in sorted(ends)}
        if any(position.next_offset > ends[p] for p, position in held.items()):
            log.warning("commands.read_again", topic=COMMANDS.name)
            positions.restart(conn, READER, COMMANDS.name, starts)
            held = {p: positions.claim(conn, READER, COMMANDS.name, p) for p in sorted(ends)}
        return held

    def _take_in(self, batch: Sequence[Record]) -> None:
        try:
            self._held = self.ledger.writer.run(lambda conn: self._accept(conn, batch, careful=False))
        except (RetryableError, FatalError):
            raise
        except Exception:
            # Something in a record that the database will not have: find that record, and let the others in.
            self._held = self.ledger.writer.run(lambda conn: self._accept(conn, batch, careful=True))
        failpoint("executor.accepted")
        self.accepted()

    def _accept(self, conn: Connection, batch: Sequence[Record], careful: bool) -> dict[int, Position]:
        if careful:
            for record in batch:
                self._carefully(conn, record)
        else:
            self._write(conn, [(record, parse_message(record)) for record in batch])
        if self.take_note is not None:
            self.take_note(conn)
        return positions.advance(conn, self._held, {record.partition: record.offset + 1 for record in batch})

    def _carefully(self, conn: Connection, record: Record) -> None:
        try:
            with conn.begin_nested():
                self._write(conn, [(record, parse_message(record))])
        except (RetryableError, FatalError):
            raise
        except Exception as error:
            self._write(conn, [(record, Unreadable(type(error).__name__))])

    def _write(self, conn: Connection, told: Sequence[tuple[Record, Message]]) -> None:
        """Commands in their order, then the events in theirs, then what is noted of parked events."""
        now = self.clock.now()
        asked = [(message, record.value or b"") for record, message in told if isinstance(message, Command)]
        new = commands.accept_all(conn, asked, format_time(now), self._doubt)
        said = [_event(message, new, now) for _, message in told]
        outbox.record(conn, [event for event in said if event is not None], HUB)
        for record, message in told:
            _note(conn, record, message, format_time(now))


def _event(message: Message, new: frozenset[str], now: datetime) -> Event | None:
    """What the log is told of a message, if anything."""
    match message:
        case Command() as command if command.type == "task.create" and command.id in new:
            return command_events.requested(command, now)
        case Derived(event=event):
            return event.model_copy(update={"recordedtime": format_time(now)})
    return None


def _note(conn: Connection, record: Record, message: Message, at: str) -> None:
    match message:
        case ParkedNews() as note:
            parked.park(conn, {**note.model_dump(exclude={"record"}), "parked_at": at})
        case SettledNews() as note:
            parked.settle(conn, note.ref, note.state, at)
        case Unreadable(reason=reason):
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
