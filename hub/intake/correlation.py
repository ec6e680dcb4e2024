"""Correlation: decides once, at intake, which case an event belongs to, and writes it into the event, so a replay needs no lookup.

An object never changes its case: the first decision goes to the link table, and all later events about the object follow it. An
event about an object that one of our commands may just be creating is held until the effect is recorded or can no longer arrive.
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

CreatedKinds = Mapping[str, frozenset[str]]
"""Instance → the kinds of object that our commands create there."""


def created_kinds(connectors: Mapping[str, Connector]) -> CreatedKinds:
    """The kinds of object that our commands may create in each instance."""
    return {name: _kinds(connector) for name, connector in connectors.items()}


def _kinds(connector: Connector) -> frozenset[str]:
    taken = connector.sends.command_types if connector.sends else frozenset()
    kinds = (COMMANDS[type_].creates for type_ in taken if type_ in COMMANDS)
    return frozenset(kind for kind in kinds if kind is not None)


def case_of(conn: Connection, event: Event, known: KnownObject, instance: str, ours: frozenset[str]) -> str | None:
    """The final case of an event whose `partitionkey` is its anchor (the object it belongs to); None when it must be held."""
    if known.held:
        return None
    if known.case is not None:
        return known.case
    anchor = event.partitionkey
    if may_be_ours(event, ours):
        # Calls in flight first and links second: an effect recorded in between is then seen as a link.
        held = commands.in_flight(conn, instance) and _linked(conn, event.subject, anchor) is None
        return None if held else decide_case(conn, event)
    is_own = anchor == event.subject and event.origin is None
    return _link(conn, anchor, anchor) if is_own else decide_case(conn, event)


def may_be_ours(event: Event, ours: frozenset[str]) -> bool:
    """Whether one of our commands may have created the object or its anchor; `ours`: the kinds that commands create there."""
    return event.kind in ours or event.partitionkey.partition("/")[0] in ours


def decide_case(conn: Connection, event: Event) -> str:
    """Decide an event's case by the present links: of its subject, its anchor, the command it echoes, else the anchor itself."""
    anchor = event.partitionkey
    found = _linked(conn, event.subject, anchor) or _echoed(conn, event.origin) or anchor
    if anchor != event.subject:
        found = _link(conn, anchor, found)
    return _link(conn, event.subject, found)


def with_case(event: Event, case: str) -> Event:
    """The event with its case as partition key and correlation id."""
    return event if event.case == case else event.model_copy(update={"partitionkey": case, "correlationid": case})


def release(conn: Connection) -> int:
    """Release held events whose case is known by now, in order for each object; returns how many."""
    released = 0
    waiting = set[str]()
    for row in outbox.held(conn):
        event = Event.from_json(row.body)
        if row.subject in waiting or not _known_by_now(conn, row, event):
            waiting.add(row.subject)
            continue
        outbox.release(conn, row.id, decide_case(conn, event))
        released += 1
    return released


def releasable(conn: Connection) -> bool:
    """Whether `release` would release any event. Only reads."""
    return any(_known_by_now(conn, row, Event.from_json(row.body)) for row in outbox.held(conn))


def _known_by_now(conn: Connection, row: AnyRow, event: Event) -> bool:
    """Whether the held event's case can be decided. Only calls accepted before the event came can have created its object."""
    in_flight = commands.in_flight(conn, row.instance, accepted_by=row.held_until)
    return not in_flight or _linked(conn, event.subject, event.partitionkey) is not None


def _linked(conn: Connection, subject: str, anchor: str) -> str | None:
    return links.case_of(conn, subject) or (links.case_of(conn, anchor) if anchor != subject else None)


def _echoed(conn: Connection, origin: str | None) -> str | None:
    command = commands.get(conn, origin) if origin else None
    return None if command is None else str(command.case_id)


def _link(conn: Connection, ref: str, case: str) -> str:
    """Link an object unless it is linked; returns its case, which the first link decides."""
    return case if links.link(conn, ref, case) else links.case_of(conn, ref) or case
