"""Batch intake: writes plain events, whose case one ledger lookup decides, with a few statements; nearly all events are plain.

A statement costs several times as much as one of its rows, and during each statement other threads and processes may run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from hub.intake import correlation
from hub.ledger import commands, conflicts, links, outbox
from hub.ledger.links import known_objects
from schemas.envelope import Event

MAX_ROWS_PER_STATEMENT = 1000
"""Databases limit the number of values in a statement."""


class EventBatch:
    """The events of one transaction. Events about one object keep the order in which they were added."""

    def __init__(
        self, conn: Connection, events: Collection[tuple[Event, str]], creates: correlation.CreatedKinds
    ) -> None:
        """Look up every object that the events, each with its instance, are about or belong to."""
        self._conn, self._creates = conn, creates
        # Calls first and links second, as in `correlation.case_of`: an effect recorded in between is then seen as a link.
        may_create = {instance for event, instance in events if creates and self._may_be_ours(event, instance)}
        self._calling = {instance for instance in may_create if commands.in_flight(conn, instance)}
        self._cases: dict[str, str] = {}
        self._blocked = set[str]()
        """Objects whose events are written one by one: they wait for others, or have been written to since the lookup."""
        self._look_up(list({ref for event, _ in events for ref in (event.subject, event.partitionkey)}))
        self._linked: dict[str, str] = {}
        """Object → the object whose case it gets; itself, where it opens a case."""
        self._added: list[tuple[Event, str]] = []

    def _look_up(self, refs: Sequence[str]) -> None:
        for at in range(0, len(refs), MAX_ROWS_PER_STATEMENT):
            for ref, (case, waits, held) in known_objects(self._conn, refs[at : at + MAX_ROWS_PER_STATEMENT]).items():
                if case is not None:
                    self._cases[ref] = case
                if waits or held:
                    self._blocked.add(ref)

    def is_plain(self, event: Event, instance: str) -> bool:
        """Whether the event may be added: its object is not blocked, and its case is known, its own, or that of its anchor."""
        if event.subject in self._blocked:
            return False
        if event.subject in self._cases:
            return True
        if event.partitionkey in self._blocked and event.partitionkey not in self._cases:
            return False
        if instance in self._calling and self._may_be_ours(event, instance):
            return self._has_case(event.subject) or self._has_case(event.partitionkey)
        return event.origin is None

    def _may_be_ours(self, event: Event, instance: str) -> bool:
        return correlation.may_be_ours(event, self._creates.get(instance, frozenset()))

    def _has_case(self, ref: str) -> bool:
        return ref in self._cases or ref in self._linked

    def add(self, event: Event, instance: str) -> None:
        """Add a plain event, to be recorded at the next `write`."""
        subject, anchor = event.subject, event.partitionkey
        if not self._has_case(subject):
            if not self._has_case(anchor):
                self._linked[anchor] = anchor
            self._linked.setdefault(subject, anchor)
        self._added.append((event, instance))
        if len(self._added) == MAX_ROWS_PER_STATEMENT:
            self.write()

    def write(self) -> None:
        """Record the added events. An object that another process has linked since the lookup keeps that link."""
        if not self._added:
            return
        self._link()
        events = [
            (correlation.with_case(event, self._cases[event.subject]), instance) for event, instance in self._added
        ]
        if outbox.record_all(self._conn, events) < len(events):
            conflicts.detect(self._conn, events)
        self._added = []

    def _link(self) -> None:
        """Link the unlinked objects, each after the object whose case it gets."""
        left, self._linked = self._linked, {}
        while left:
            cases = self._cases
            first = {ref: cases.get(of, of) for ref, of in left.items() if of == ref or of in cases}
            cases |= links.link_all(self._conn, first)
            left = {ref: of for ref, of in left.items() if ref not in first}

    def changed(self, *refs: str) -> None:
        """Mark objects as written to by other means: their lookup is out of date."""
        self._blocked.update(refs)
        for ref in refs:
            self._cases.pop(ref, None)
