"""News, written by set: events whose case needs no more than one look at the ledger, as nearly all of them are.

A statement costs several times what a row of it does, and each lets other threads and programs in between.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection

from connectors import casing
from hub.ledger import commands, conflicts, links, outbox
from hub.ledger.subjects import Known, look_all
from schemas.event import Event

AT_ONCE = 1000
"""Rows of one statement: databases bound how many values it may have."""
_NONE = Known(None, False, False)


class News:
    """What is told in one transaction. Events of one object keep the order in which they were added."""

    def __init__(self, conn: Connection, told: Collection[tuple[Event, str]], creates: casing.Creates) -> None:
        """Look at every object that any event of these instances is about, or belongs to."""
        self._conn, self._creates = conn, creates
        # Asked for first, as `casing.case_of` does: an effect recorded in between is then seen as a link.
        ours = {instance for event, instance in told if self._may_be_ours(event, instance)}
        self._calling = {instance for instance in ours if commands.in_flight(conn, instance)}
        refs = list(dict.fromkeys(ref for event, _ in told for ref in (event.subject, event.partitionkey)))
        self._known: dict[str, Known] = {}
        for at in range(0, len(refs), AT_ONCE):
            self._known |= look_all(conn, refs[at : at + AT_ONCE])
        self._changed = set[str]()
        self._linked: dict[str, str] = {}
        """Object → the one whose case it gets; itself, where it opens one."""
        self._told: list[tuple[Event, str]] = []

    def is_plain(self, event: Event, instance: str) -> bool:
        """Whether it may be added: nothing holds its object up, and its case is known, its own, or that of what it belongs to."""
        if event.subject in self._changed or event.partitionkey in self._changed:
            return False
        known = self._known.get(event.subject, _NONE)
        if known.waits or known.held:
            return False
        if known.case is not None:
            return True
        if instance in self._calling and self._may_be_ours(event, instance):
            return self._is_linked(event.subject) or self._is_linked(event.partitionkey)
        return event.origin is None

    def _may_be_ours(self, event: Event, instance: str) -> bool:
        return casing.may_be_ours(event, self._creates.get(instance, frozenset()))

    def _is_linked(self, ref: str) -> bool:
        return ref in self._linked or self._known.get(ref, _NONE).case is not None

    def add(self, event: Event, instance: str) -> None:
        """Take a plain event in at the next `write`."""
        subject, anchor = event.subject, event.partitionkey
        if not self._is_linked(subject):
            if not self._is_linked(anchor):
                self._linked[anchor] = anchor
            self._linked.setdefault(subject, anchor)
        self._told.append((event, instance))
        if len(self._told) == AT_ONCE:
            self.write()

    def write(self) -> None:
        """Write what was added. An object that another program has linked since the look goes by what that one wrote."""
        if not self._told:
            return
        cases = self._link()
        told = [(casing.under(event, cases[event.subject]), instance) for event, instance in self._told]
        if outbox.record_all(self._conn, told) < len(told):
            conflicts.look(self._conn, told)
        self._told = []

    def _link(self) -> Mapping[str, str]:
        """Link what is linked to nothing; object → case, of all. An object comes behind the one whose case it gets."""
        cases = {ref: known.case for ref, known in self._known.items() if known.case is not None}
        left, self._linked = self._linked, {}
        while left:
            first = {ref: cases.get(of, of) for ref, of in left.items() if of == ref or of in cases}
            linked = links.link_all(self._conn, first)
            cases |= linked
            self._known |= {ref: self._known.get(ref, _NONE)._replace(case=case) for ref, case in linked.items()}
            left = {ref: of for ref, of in left.items() if ref not in first}
        return cases

    def changed(self, *refs: str) -> None:
        """Something else was written about these objects: what was seen of them no longer counts."""
        self._changed.update(refs)
