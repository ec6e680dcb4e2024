"""The entities view: the state of every business object, each value with its source and time, by the processor's own fold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from hub.engine.case import Case, Entity
from hub.kit.projection import Projection, Row
from projections.entities.table import entities
from schemas.envelope import Event

IGNORED_KINDS = frozenset({"command", "request", "delivery", "timer"})
"""Kinds of subject that are the hub's own bookkeeping, not business objects."""
STATE_TYPES = (
    "hub.rule.changed",
    "hub.rule.suspended",
    "hub.connector.paused",
    "hub.connector.resumed",
    "hub.connector.silent",
)
"""The hub's own events that set a state of their subject; its other events are notes about something else."""


def keys_of(event: Event) -> tuple[str, ...]:
    """One row per entity and case, so that a row depends on the order of one partition only."""
    if event.kind in IGNORED_KINDS or (event.type.startswith("hub.") and event.type not in STATE_TYPES):
        return ()
    return (key_of(event.subject, event.case),)


def key_of(ref: str, case: str) -> str:
    """The key of an entity within one case: short enough for an index, however long the references are."""
    return f"{ref}@{hashlib.sha256(case.encode()).hexdigest()[:16]}"


def next_state(known: Mapping[str, Row | None], event: Event) -> Mapping[str, Row | None]:
    """Fold one event into its entity's row."""
    ((key, row),) = known.items()
    before = {event.subject: _entity(event.subject, row)} if row is not None else {}
    case = Case(id=event.case, opened_by=event.case, entities=before).with_entity(event)
    return {key: _row(case.entities[event.subject], event.case)}


def _entity(ref: str, row: Row) -> Entity:
    sources = {name: (source, time) for name, (source, time) in row["sources"].items()}
    return Entity(
        ref=ref,
        data=row["data"],
        sources=sources,
        version=row["version"],
        time=row["time"],
        stage=row["stage"],
        entered=row["entered"],
        was=row["was"],
    )


def _row(entity: Entity, case: str) -> Row:
    return {
        "ref": entity.ref,
        "kind": entity.kind,
        "case_id": case,
        "stage": entity.stage,
        "version": entity.version,
        "time": entity.time,
        "data": dict(entity.data),
        "sources": {name: list(source) for name, source in entity.sources.items()},
        "entered": dict(entity.entered),
        "was": entity.was,
    }


def view(conn: Connection, ref: str) -> dict[str, Any] | None:
    """The merged state of an entity; None when no event was about it."""
    rows = conn.execute(select(entities).where(entities.c.ref == ref).order_by(entities.c.time, entities.c.key))
    return merged([dict(row) for row in rows.mappings()])


def merged(rows: Sequence[Row]) -> dict[str, Any] | None:
    """One entity merged from its rows, one per case, oldest first: the newest value of each field."""
    if not rows:
        return None
    data: dict[str, Any] = {}
    sources: dict[str, tuple[str, str]] = {}
    for row in rows:
        for name, (source, time) in row["sources"].items():
            if name not in sources or time >= sources[name][1]:
                data[name], sources[name] = row["data"].get(name), (source, time)
    newest = rows[-1]
    stage = next((row["stage"] for row in reversed(rows) if row["stage"] is not None), None)
    return {
        "subject": newest["ref"],
        "kind": newest["kind"],
        "case": newest["case_id"],
        "stage": stage,
        "version": newest["version"],
        "time": newest["time"],
        "data": {name: value for name, value in data.items() if value is not None},
        "sources": {name: {"source": source, "time": time} for name, (source, time) in sources.items()},
    }


def names(conn: Connection, kind: str, cases: Sequence[str]) -> dict[str, dict[str, str]]:
    """Case → reference → name, for the entities of one kind in these cases."""
    found = select(entities.c.case_id, entities.c.ref, entities.c.data).where(
        entities.c.kind == kind, entities.c.case_id.in_(sorted(set(cases)))
    )
    named: dict[str, dict[str, str]] = {}
    for row in conn.execute(found):
        named.setdefault(row.case_id, {})[row.ref] = str(row.data.get("name") or row.data.get("title") or row.ref)
    return named


PROJECTION = Projection(
    name="entities",
    title={"zh-CN": "业务对象", "en": "Entities"},
    version=2,
    table=entities,
    keys=keys_of,
    fold=next_state,
)
