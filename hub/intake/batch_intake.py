"""News, written by set: events whose case needs no more than one look at the ledger, as nearly all of them are.

A statement costs several times what a row of it does, and each lets other threads and programs in between.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from hub.intake import correlation
from hub.ledger import commands, conflicts, links, outbox
from hub.ledger.links import look_all
from schemas.envelope import Event

AT_ONCE = 1000
"""Rows of one statement: databases bound how many values it may have."""


class News:
    """What is told in one transaction. Events of one object keep the order in which they were added."""

    def __init__(self, conn: Connection, told: Collection[tuple[Event, str]], creates: correlation.Creates) -> None:
        """Look at every object that any event of these instances is about, or belongs to."""
        self._conn, self._creates = conn, creates
        # Asked for first, as `casing.case_of` does: an effect recorded in between is then seen as a link.
        ours = {instance for event, instance in told if creates and self._may_be_ours(event, instance)}
        self._calling = {instance for instance in ours if commands.in_flight(conn, instance)}
        self._cases: dict[str, str] = {}
        self._barred = set[str]()
        """Objects whose news go one by one: they wait for others, or something else was written about them since the look."""
        self._look(list({ref for event, _ in told for ref in (event.subject, event.partitionkey)}))
        self._linked: dict[str, str] = {}
        """Object → the one whose case it gets; itself, where it opens one."""
        self._told: list[tuple[Event, str]] = []

    def _look(self, refs: Sequence[str]) -> None:
        for at in range(0, len(refs), AT_ONCE):
            for ref, (case, waits, held) in look_all(self._conn, refs[at : at + AT_ONCE]).items():
                if case is not None:
                    self._cases[ref] = case
                if waits or held:
                    self._barred.add(ref)

    def is_plain(self, event: Event, instance: str) -> bool:
        """Whether it may be added: nothing holds its object up, and its case is known, its own, or that of what it belongs to."""
        if event.subject in self._barred:
            return False
        if event.subject in self._cases:
            return True
        if event.partitionkey in self._barred and event.partitionkey not in self._cases:
            return False
        if instance in self._calling and self._may_be_ours(event, instance):
            return self._has_case(event.subject) or self._has_case(event.partitionkey)
        return event.origin is None

    def _may_be_ours(self, event: Event, instance: str) -> bool:
        return correlation.may_be_ours(event, self._creates.get(instance, frozenset()))

    def _has_case(self, ref: str) -> bool:
        return ref in self._cases or ref in self._linked

    def add(self, event: Event, instance: str) -> None:
        """Take a plain event in at the next `write`."""
        subject, anchor = event.subject, event.partitionkey
        if not self._has_case(subject):
            if not self._has_case(anchor):
                self._linked[anchor] = anchor
            self._linked.setdefault(subject, anchor)
        self._told.append((event, instance))
        if len(self._told) == AT_ONCE:
            self.write()

    def write(self) -> None:
        """Write what was added. An object that another program has linked since the look goes by what that one wrote."""
        if not self._told:
            return
        self._link()
        told = [(correlation.under(event, self._cases[event.subject]), instance) for event, instance in self._told]
        if outbox.record_all(self._conn, told) < len(told):
            conflicts.look(self._conn, told)
        self._told = []

    def _link(self) -> None:
        """Link what is linked to nothing. An object comes behind the one whose case it gets."""
        left, self._linked = self._linked, {}
        while left:
            cases = self._cases
            first = {ref: cases.get(of, of) for ref, of in left.items() if of == ref or of in cases}
            cases |= links.link_all(self._conn, first)
            left = {ref: of for ref, of in left.items() if ref not in first}

    def changed(self, *refs: str) -> None:
        """Something else was written about these objects: what was seen of them no longer counts."""
        self._barred.update(refs)
        for ref in refs:
            self._cases.pop(ref, None)
