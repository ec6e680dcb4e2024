"""Which case an event belongs to: asked once, at intake, and written into the event, so that a replay asks nobody.

An object never changes its case: the first answer is written to the link table, and all later news of it follow. News of an
object that we may just be creating are held back until the effect is recorded, or until it cannot be ours any more.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from hub.kit.connector import Connector
from hub.ledger import commands, links, outbox
from hub.ledger.database import AnyRow
from hub.ledger.links import KnownObject
from schemas.envelope import Event
from schemas.registry import COMMANDS

Creates = Mapping[str, frozenset[str]]
"""Instance → the kinds of object that commands of ours create there."""


def creates(connectors: Mapping[str, Connector]) -> Creates:
    """What each of these instances may create for us."""
    return {name: _kinds(connector) for name, connector in connectors.items()}


def _kinds(connector: Connector) -> frozenset[str]:
    taken = connector.sends.takes if connector.sends else frozenset()
    kinds = (COMMANDS[type_].creates for type_ in taken if type_ in COMMANDS)
    return frozenset(kind for kind in kinds if kind is not None)


def case_of(conn: Connection, event: Event, known: KnownObject, instance: str, ours: frozenset[str]) -> str | None:
    """The case of an event whose `partitionkey` is its anchor, settled for good; None when it must be held back."""
    if known.held:
        return None
    if known.case is not None:
        return known.case
    anchor = event.partitionkey
    if may_be_ours(event, ours):
        # Ask for calls under way first and for links second: an effect recorded in between is then seen as a link.
        held = commands.in_flight(conn, instance) and _linked(conn, event.subject, anchor) is None
        return None if held else settle(conn, event)
    is_own = anchor == event.subject and event.origin is None
    return _link(conn, anchor, anchor) if is_own else settle(conn, event)


def may_be_ours(event: Event, ours: frozenset[str]) -> bool:
    """Whether a command of ours could make the object, or what it belongs to; `ours` are the kinds that it can make there."""
    return event.kind in ours or event.partitionkey.partition("/")[0] in ours


def settle(conn: Connection, event: Event) -> str:
    """Decide an event's case by what is linked now: its subject, its anchor, the command it echoes, else the anchor itself."""
    anchor = event.partitionkey
    found = _linked(conn, event.subject, anchor) or _echoed(conn, event.origin) or anchor
    if anchor != event.subject:
        found = _link(conn, anchor, found)
    return _link(conn, event.subject, found)


def under(event: Event, case: str) -> Event:
    """The event in its case."""
    return event if event.case == case else event.model_copy(update={"partitionkey": case, "correlationid": case})


def release(conn: Connection) -> int:
    """Give held events whose case is known by now back to the log, in order per object; how many."""
    released = 0
    waiting = set[str]()
    for row in outbox.held(conn):
        event = Event.from_json(row.body)
        if row.subject in waiting or not _known_by_now(conn, row, event):
            waiting.add(row.subject)
            continue
        outbox.release(conn, row.id, settle(conn, event))
        released += 1
    return released


def releasable(conn: Connection) -> bool:
    """Whether `release` would find something to do. Only reads."""
    return any(_known_by_now(conn, row, Event.from_json(row.body)) for row in outbox.held(conn))


def _known_by_now(conn: Connection, row: AnyRow, event: Event) -> bool:
    """A call that began after the news came cannot have made the object: only earlier ones are waited for."""
    still = commands.in_flight(conn, row.instance, accepted_by=row.held_until)
    return not still or _linked(conn, event.subject, event.partitionkey) is not None


def _linked(conn: Connection, subject: str, anchor: str) -> str | None:
    return links.case_of(conn, subject) or (links.case_of(conn, anchor) if anchor != subject else None)


def _echoed(conn: Connection, origin: str | None) -> str | None:
    command = commands.get(conn, origin) if origin else None
    return None if command is None else str(command.case_id)


def _link(conn: Connection, ref: str, case: str) -> str:
    """Link an object unless it is linked; its case, by whoever was first."""
    return case if links.link(conn, ref, case) else links.case_of(conn, ref) or case
