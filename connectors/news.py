"""Plain news, written by set: events whose case needs no more than one look at the ledger, as nearly all of them are.

A statement costs several times what a row of it does, and each lets other threads and programs in between.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from connectors import casing
from hub.ledger import conflicts, links, outbox
from hub.ledger.subjects import look_all
from schemas.event import Event


class News:
    """What is told in one transaction. Events of one object keep the order in which they were added."""

    def __init__(self, conn: Connection, about: Iterable[str]) -> None:
        """Look at every object that any event is about."""
        self._conn = conn
        self._known = look_all(conn, list(dict.fromkeys(about)))
        self._changed = set[str]()
        self._linked: dict[str, str] = {}
        self._told: list[tuple[Event, str]] = []

    def is_plain(self, event: Event, ours: frozenset[str]) -> bool:
        """Whether it may be added: nothing holds its object up, and the case is known or its own."""
        if event.subject in self._changed:
            return False
        known = self._known.get(event.subject)
        return casing.is_own(event, ours) if known is None else not (known.waits or known.held)

    def add(self, event: Event, instance: str) -> None:
        """Take a plain event in at the next `write`."""
        known = self._known.get(event.subject)
        if known is not None and known.case is not None:
            event = casing.under(event, known.case)
        else:
            self._linked[event.subject] = event.subject
        self._told.append((event, instance))

    def write(self) -> None:
        """Write what was added. An object that another program has linked since the look goes by what that one wrote."""
        linked = links.link_all(self._conn, self._linked)
        told = [
            (casing.under(event, linked.get(event.subject, event.case)), instance) for event, instance in self._told
        ]
        if outbox.record_all(self._conn, told) < len(told):
            conflicts.look(self._conn, told)
        self._linked, self._told = {}, []

    def changed(self, subject: str) -> None:
        """Something else was written about an object: what was seen of it no longer counts."""
        self._changed.add(subject)
