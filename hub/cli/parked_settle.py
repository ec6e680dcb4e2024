"""Asking for parked work to be taken up or given up, and waiting until whoever keeps it has answered.

Events are answered by the processor, commands by the executor, deliveries by intake: three programs that see the ledger.

Which entries a person means: filters and causes, as the ledger looks for them.
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


def wanted(
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
    """The filter of these marks. Raises RejectedError for a cause that no open entry has, and for a time that is none."""
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
    """All that is wanted, a page at a time, each a look of its own: what is settled meanwhile is not seen again."""
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
    from hub.ledger.parked_events import Asking

PATIENCE = 30.0
"""Seconds to wait for answers."""
LOOK = 0.15
REREAD = 3.0
"""Seconds within which every program has read a changed file of rules or people."""


@dataclass
class Settling:
    """One request about some entries. `still_open` says afterwards which of them it did not settle."""

    hub: RunningHub
    ledger: Ledger
    by: str
    reason: str | None = None
    notes: list[str] = field(default_factory=list)
    """Ids of the events that ask the processor."""
    commands: list[str] = field(default_factory=list)
    deliveries: list[int] = field(default_factory=list)
    refs: list[str] = field(default_factory=list)
    _cases: set[str] = field(default_factory=set)

    def retry(self, entries: Sequence[AnyRow]) -> None:
        """Ask for these, each case of events once: all that waits in a case is taken up with it. May be called page by page."""
        for entry in entries:
            if not can_be_retried(entry):
                raise RejectedError("HUB-E6205", id=entry.id)
        self.ledger.writer.run(lambda conn: self._ask(conn, entries))

    def _ask(self, conn: Connection, entries: Sequence[AnyRow]) -> None:
        from hub.ledger import parked, parked_work

        for entry in entries:
            self.refs.append(entry.ref)
            if entry.kind == "delivery":
                parked.ask(conn, entry.id, "retry", self.by, self.reason)
                self.deliveries.append(entry.id)
            elif entry.kind == "command":
                parked_work.retry(conn, _id(entry), datetime.now(UTC), self.by, self.reason)
                self.commands.append(_id(entry))
            elif (entry.case_id or entry.ref) not in self._cases:
                self._cases.add(entry.case_id or entry.ref)
                self._ask_case(conn, entry)

    def _ask_case(self, conn: Connection, entry: AnyRow) -> None:
        from hub.ledger import parked
        from hub.ledger.parked_events import has_case, retry

        now = parked.get(conn, entry.id)
        assert now is not None  # entries are never deleted
        self.notes.append(retry(conn, now, self._asking()))
        if has_case(entry):
            self.refs += [row.ref for row in parked.opened(conn, kind="event", case=entry.case_id)]

    def discard(self, entry: AnyRow) -> None:
        """Ask for this one to be given up."""
        from hub.ledger import parked, parked_work
        from hub.ledger.parked_events import discard

        def work(conn: Connection) -> None:
            self.refs.append(entry.ref)
            if entry.kind == "delivery":
                parked.ask(conn, entry.id, "discard", self.by, self.reason)
                self.deliveries.append(entry.id)
            elif entry.kind == "command" and not _is_record(entry):
                parked_work.discard(conn, _id(entry), self.reason or "", datetime.now(UTC), self.by)
            else:
                self.notes.append(discard(conn, entry, self._asking()))

        self.ledger.writer.run(work)

    def wait(self, patience: float = PATIENCE) -> None:
        """Return once everything is answered, well or not, at the latest after so many seconds; at once while no hub runs."""
        if not self.hub.runs and self.hub.home.config.kafka.embedded:
            return
        tried = RetryProgress(self.hub, self.ledger, self.notes)
        until(lambda: self._answered() and (not self.still_open() or tried()), patience)

    def still_open(self) -> list[AnyRow]:
        """Those of the entries that are parked now."""
        from hub.ledger.parked_search import opened_of

        with self.ledger.reading() as conn:
            return opened_of(conn, list(dict.fromkeys(self.refs)))

    def unfinished(self) -> list[str]:
        """Commands that were taken up and are still being tried."""
        with self.ledger.reading() as conn:
            return [command for command in self.commands if not _ended(conn, command)]

    def _answered(self) -> bool:
        from hub.ledger import parked

        with self.ledger.reading() as conn:
            self.deliveries = [id_ for id_ in self.deliveries if parked.is_asked(conn, id_)]
            return not self.deliveries and all(_ended(conn, command) for command in self.commands)

    def _asking(self) -> Asking:
        from hub.ledger.parked_events import Asking

        return Asking(datetime.now(UTC), self.by, self.reason)


@dataclass
class RetryProgress:
    """Whether the processor has folded these events, and the ledger has taken in what it said of them."""

    hub: RunningHub
    ledger: Ledger
    notes: Sequence[str]
    _waiting: list[str] | None = None
    _partitions: set[int] = field(default_factory=set)
    _ends: dict[int, int] = field(default_factory=dict)
    _said: dict[int, int] | None = None

    def __call__(self) -> bool:
        try:
            return not self.notes or (self._in_the_log() and self._folded() and self._taken_in())
        except RetryableError:
            return False

    def _in_the_log(self) -> bool:
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

        if self._said is not None:
            return True
        done = progress(self.hub.client).done
        if any(done.get(partition, 0) < end for partition, end in self._ends.items()):
            return False
        self._said = self.hub.log().ends(COMMANDS.name)
        return True

    def _taken_in(self) -> bool:
        from hub.ledger import positions
        from schemas.topics import COMMANDS

        with self.ledger.reading() as conn:
            read = positions.of_reader(conn, "executor", COMMANDS.name)
        return all(read.get(partition, 0) >= end for partition, end in (self._said or {}).items())


def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Look again and again until it holds; False when it does not in so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK)
    return True


def until_files_are_read(hub: RunningHub) -> None:
    """Wait until the running programs have read rules and people as the files are now: a person retries what they just mended."""
    home = hub.home.path
    files = [home / "people.yaml", home / "calendar.yaml", *(home / "rules").glob("*.y*ml")]
    changed = max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)
    if hub.runs:
        until(lambda: time.time() - changed > REREAD, REREAD)


def can_be_retried(entry: AnyRow) -> bool:
    """Whether another try could end otherwise: for a foreign record that belongs to no case, only once it was corrected."""
    from hub.ledger.parked_events import has_case

    if entry.kind == "delivery" or not _is_record(entry):
        return True
    return entry.kind == "event" and (has_case(entry) or entry.edits > 0)


def _id(entry: AnyRow) -> str:
    return str(entry.ref).removeprefix("command/")


def _is_record(entry: AnyRow) -> bool:
    """Whether it is a record of the log that is neither event nor command."""
    return str(entry.ref).startswith("record/")


def _ended(conn: Connection, command: str) -> bool:
    from hub.ledger import commands

    row = commands.get(conn, command)
    return row is None or row.state in ("DONE", "DISCARDED", "PARKED")
