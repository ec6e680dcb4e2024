"""Requests the retry or discard of parked work and waits for the result; also the filters by which a person selects entries.

The processor handles events, the executor commands, and intake deliveries: three programs that read the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hub.cli.render import time_of
from hub.errors import RejectedError, RetryableError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.ledger.database import AnyRow
    from hub.ledger.ledger import Ledger
    from hub.ledger.parked_search import ParkedFilter


def parked_filter(
    conn: Connection | None = None,
    cause: str | None = None,
    *,
    kind: str | None = None,
    code: str | None = None,
    rule: str | None = None,
    instance: str | None = None,
    case: str | None = None,
    since: str | None = None,
    state: str = "open",
) -> ParkedFilter:
    """The filter of these options. Raises RejectedError for a cause that no open entry has, and for an invalid time."""
    from hub.ledger.parked_search import ParkedFilter, by_name

    found = ParkedFilter(
        kind, code, rule, instance, case, time_of(since) if since else None, None if state == "all" else state
    )
    if cause is None or conn is None:
        return found
    named = by_name(conn, cause)
    if not named:
        raise RejectedError("HUB-E6208", cause=cause)
    if all(each.code == cause for each in named):
        return replace(found, code=cause)
    if len(named) > 1:
        raise RejectedError("HUB-E6207", ref=cause, candidates=", ".join(each.name for each in named[:5]))
    return replace(found, cause=named[0])


def pages(ledger: Ledger, wanted: ParkedFilter) -> Iterator[Sequence[AnyRow]]:
    """The matching entries, page by page, each read in its own transaction: entries settled in between do not appear again."""
    from hub.ledger.parked_search import page

    after = 0
    while True:
        with ledger.reading() as conn:
            rows = page(conn, wanted, after)
        if not rows:
            return
        after = rows[-1].id
        yield rows


if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.cli.running_hub import RunningHub
    from hub.ledger.database import AnyRow
    from hub.ledger.ledger import Ledger
    from hub.ledger.parked_events import OperatorRequest

ANSWER_TIMEOUT_S = 30.0
"""Seconds to wait for answers."""
POLL_INTERVAL_S = 0.15
FILE_RELOAD_S = 3.0
"""Seconds within which every program has read a changed file of rules or people."""


@dataclass
class ParkedRequests:
    """An operator's request for some entries. Afterwards `still_open` returns those that it did not settle."""

    hub: RunningHub
    ledger: Ledger
    by: str
    reason: str | None = None
    notes: list[str] = field(default_factory=list)
    """Ids of the request events for the processor."""
    commands: list[str] = field(default_factory=list)
    deliveries: list[int] = field(default_factory=list)
    refs: list[str] = field(default_factory=list)
    _cases: set[str] = field(default_factory=set)

    def retry(self, entries: Sequence[AnyRow]) -> None:
        """Request the retry of these, each case of events once: a case is retried as a whole. May be called page by page."""
        for entry in entries:
            if not can_be_retried(entry):
                raise RejectedError("HUB-E6205", id=entry.id)
        self.ledger.writer.run(lambda conn: self._request(conn, entries))

    def _request(self, conn: Connection, entries: Sequence[AnyRow]) -> None:
        from hub.ledger import parked, parked_work

        for entry in entries:
            self.refs.append(entry.ref)
            if entry.kind == "delivery":
                parked.request(conn, entry.id, "retry", self.by, self.reason)
                self.deliveries.append(entry.id)
            elif entry.kind == "command":
                parked_work.retry(conn, _id(entry), datetime.now(UTC), self.by, self.reason)
                self.commands.append(_id(entry))
            elif (entry.case_id or entry.ref) not in self._cases:
                self._cases.add(entry.case_id or entry.ref)
                self._request_case(conn, entry)

    def _request_case(self, conn: Connection, entry: AnyRow) -> None:
        from hub.ledger import parked
        from hub.ledger.parked_events import has_case, retry

        now = parked.get(conn, entry.id)
        assert now is not None  # entries are never deleted
        self.notes.append(retry(conn, now, self._operator_request()))
        if has_case(entry):
            self.refs += [row.ref for row in parked.open_entries(conn, kind="event", case=entry.case_id)]

    def discard(self, entry: AnyRow) -> None:
        """Request the discard of this entry."""
        from hub.ledger import parked, parked_work
        from hub.ledger.parked_events import discard

        def work(conn: Connection) -> None:
            self.refs.append(entry.ref)
            if entry.kind == "delivery":
                parked.request(conn, entry.id, "discard", self.by, self.reason)
                self.deliveries.append(entry.id)
            elif entry.kind == "command" and not _is_record(entry):
                parked_work.discard(conn, _id(entry), self.reason or "", datetime.now(UTC), self.by)
            else:
                self.notes.append(discard(conn, entry, self._operator_request()))

        self.ledger.writer.run(work)

    def wait(self, patience: float = ANSWER_TIMEOUT_S) -> None:
        """Block until every request has a result, good or bad, at most `patience` seconds; return at once while no hub runs."""
        if not self.hub.runs and self.hub.home.config.kafka.embedded:
            return
        retried = RetryProgress(self.hub, self.ledger, self.notes)
        wait_until(lambda: self._answered() and (not self.still_open() or retried()), patience)

    def still_open(self) -> list[AnyRow]:
        """Those of the entries that are still parked."""
        from hub.ledger.parked_search import open_entries_of

        with self.ledger.reading() as conn:
            return open_entries_of(conn, list(dict.fromkeys(self.refs)))

    def unfinished(self) -> list[str]:
        """Commands whose retry is still in progress."""
        with self.ledger.reading() as conn:
            return [command for command in self.commands if not _ended(conn, command)]

    def _answered(self) -> bool:
        from hub.ledger import parked

        with self.ledger.reading() as conn:
            self.deliveries = [id_ for id_ in self.deliveries if parked.has_request(conn, id_)]
            return not self.deliveries and all(_ended(conn, command) for command in self.commands)

    def _operator_request(self) -> OperatorRequest:
        from hub.ledger.parked_events import OperatorRequest

        return OperatorRequest(datetime.now(UTC), self.by, self.reason)


@dataclass
class RetryProgress:
    """Whether the processor has folded these events, and the executor has read the processor's output into the ledger."""

    hub: RunningHub
    ledger: Ledger
    notes: Sequence[str]
    _waiting: list[str] | None = None
    _partitions: set[int] = field(default_factory=set)
    _ends: dict[int, int] = field(default_factory=dict)
    _output_ends: dict[int, int] | None = None

    def __call__(self) -> bool:
        try:
            return not self.notes or (self._published() and self._folded() and self._consumed())
        except RetryableError:
            return False

    def _published(self) -> bool:
        from hub.ledger import outbox, trimmed
        from schemas.topics import EVENTS

        if self._ends:
            return True
        if self._waiting is None:
            self._waiting = list(self.notes)
        with self.ledger.reading() as conn:
            while self._waiting:
                row = outbox.find(conn, self._waiting[-1])
                if row is None and not trimmed.is_trimmed(conn, self._waiting[-1]):
                    return False
                if row is not None and row.published_at is None:
                    return False
                self._partitions |= {row.partition} if row is not None else set()
                self._waiting.pop()
        partitions = self._partitions
        self._ends = {p: end for p, end in self.hub.log().ends(EVENTS.name).items() if p in partitions}
        return True

    def _folded(self) -> bool:
        from hub.cli.status import progress
        from schemas.topics import COMMANDS

        if self._output_ends is not None:
            return True
        done = progress(self.hub.client).done
        if any(done.get(partition, 0) < end for partition, end in self._ends.items()):
            return False
        self._output_ends = self.hub.log().ends(COMMANDS.name)
        return True

    def _consumed(self) -> bool:
        from hub.ledger import positions
        from schemas.topics import COMMANDS

        with self.ledger.reading() as conn:
            read = positions.of_reader(conn, "executor", COMMANDS.name)
        return all(read.get(partition, 0) >= end for partition, end in (self._output_ends or {}).items())


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Poll until the condition holds; False when it does not within this many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_INTERVAL_S)
    return True


def wait_for_file_reload(hub: RunningHub) -> None:
    """Wait until the running programs have reloaded rules and people: a person often retries right after correcting a file."""
    home = hub.home.path
    files = [home / "people.yaml", home / "calendar.yaml", *(home / "rules").glob("*.y*ml")]
    changed = max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)
    if hub.runs:
        wait_until(lambda: time.time() - changed > FILE_RELOAD_S, FILE_RELOAD_S)


def can_be_retried(entry: AnyRow) -> bool:
    """Whether a retry could succeed: for a foreign record without a case, only once it was corrected."""
    from hub.ledger.parked_events import has_case

    if entry.kind == "delivery" or not _is_record(entry):
        return True
    return entry.kind == "event" and (has_case(entry) or entry.edits > 0)


def _id(entry: AnyRow) -> str:
    return str(entry.ref).removeprefix("command/")


def _is_record(entry: AnyRow) -> bool:
    """Whether it is a log record that is neither event nor command."""
    return str(entry.ref).startswith("record/")


def _ended(conn: Connection, command: str) -> bool:
    from hub.ledger import commands

    row = commands.get(conn, command)
    return row is None or row.state in ("DONE", "DISCARDED", "PARKED")
