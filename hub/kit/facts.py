"""A connector's fact made into an event. Pure: the same fact, people and moment give the same event.

What cannot become one is refused here, at the door, with the field and the reason: nothing behind the outbox has to doubt.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, get_args

import orjson
from pydantic import ValidationError

from hub.errors import RejectedError
from hub.kit.connector import Fact
from schemas.envelope import MAX_BYTES, OUTSIDE, Event, derived_ids, format_time
from schemas.registry import EventSpec, Model, event_spec

AHEAD = timedelta(minutes=5)
"""How far a source's clock may be before ours. A later time is brought back to that: no clock may poison what waits on time."""
OLDEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), timedelta(days=1)
"""The oldest time that a source may tell, and how far ahead of ours the latest: others stand for "unknown" or "never"."""

ENVELOPE = 32 * 1024
"""Bytes that an event takes beside its data, at the very most: all attributes at their longest, each byte escaped."""


_ids = functools.lru_cache(1024)(derived_ids)


class PeopleLookup(Protocol):
    """Who is who: people.yaml as it is now."""

    def person_of(self, instance: str, account: str) -> str | None:
        """`person/<id>` of an account at an instance, None when nobody has it."""


@dataclass(frozen=True)
class Door:
    """Where and when a fact comes in. `fallback` is the version of a fact whose connector gives none."""

    instance: str
    people: PeopleLookup
    now: datetime
    fallback: str

    def person(self, account: str) -> str:
        """The person behind an account; what is a reference already stays one."""
        if account.startswith(("person/", "account/")):
            return account
        return self.people.person_of(self.instance, account) or f"account/{self.instance}/{account}"


def event_of(fact: Fact, door: Door) -> Event:
    """The event of a fact, its case not yet settled: `partitionkey` holds what it belongs to, else its subject.

    Raises RejectedError with field and reason for data that the catalogue does not allow, for a time that cannot be, and for more
    than MAX_BYTES.
    """
    spec = event_spec(fact.type)
    named = _with_persons(fact.data, spec.model, door)
    clears = [name for name in dict.fromkeys(fact.clears) if named.get(name) is None]
    data = _checked(spec, fact, {**named, **dict.fromkeys(clears)})
    anchor = fact.belongs_to or fact.subject
    latest = door.now + AHEAD
    try:
        if not OLDEST <= fact.time <= door.now + LATEST:
            raise RejectedError("HUB-E6110", type=fact.type, subject=fact.subject, time=fact.time.isoformat())
        event = Event(
            id=_ids(door.instance, fact.type)(fact.subject, fact.version or door.fallback),
            source=f"{OUTSIDE}{door.instance}",
            type=fact.type,
            subject=fact.subject,
            time=format_time(min(fact.time, latest)),
            claimedtime=format_time(fact.time) if fact.time > latest else None,
            recordedtime=format_time(door.now),
            dataschema=spec.dataschema,
            partitionkey=anchor,
            correlationid=anchor,
            causationid=fact.origin,
            subjectversion=fact.version or None,
            actor=door.person(fact.actor) if fact.actor else None,
            origin=fact.origin,
            clears=clears or None,
            data=data,
        )
        size = _size(event)
    except (ValidationError, TypeError, ValueError) as error:
        field, reason = _said(error)
        raise RejectedError("HUB-E6102", type=fact.type, subject=fact.subject, field=field, reason=reason) from error
    if size > MAX_BYTES:
        raise RejectedError("HUB-E6103", type=fact.type, subject=fact.subject, size=size, limit=MAX_BYTES)
    return event


def _size(event: Event) -> int:
    """Bytes of its JSON, or a bound on them that is small enough: writing it whole costs a push a twentieth of its time."""
    bound = len(orjson.dumps(event.data)) + ENVELOPE
    return bound if bound <= MAX_BYTES else len(event.to_json())


def _checked(spec: EventSpec, fact: Fact, data: dict[str, Any]) -> dict[str, Any]:
    try:
        return spec.model.model_validate(data).model_dump(mode="json", exclude_unset=True)
    except (ValidationError, TypeError, ValueError, RecursionError) as error:
        field, reason = _said(error)
        raise RejectedError("HUB-E6101", type=fact.type, subject=fact.subject, field=field, reason=reason) from error


def _said(error: Exception) -> tuple[str, str]:
    """The field and the reason, without the value: it may be anybody's."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return ".".join(map(str, first["loc"])) or "data", first["msg"]
    return "data", str(error)[:200]


def _with_persons(data: Mapping[str, Any], model: Model, door: Door) -> dict[str, Any]:
    """The data with persons for accounts. An empty account is nobody: the field is left out."""
    named = dict(data)
    for field in person_fields(model) & named.keys():
        value = named[field]
        if value == "":
            del named[field]
        elif isinstance(value, str | int) and not isinstance(value, bool):
            named[field] = door.person(str(value))
    return named


@functools.cache
def person_fields(model: Model) -> frozenset[str]:
    """The fields of a model that name a person."""
    fields = model.model_fields.items()
    return frozenset(name for name, field in fields if "person" in field.metadata or _marked(field.annotation))


def _marked(annotation: object) -> bool:
    marks = getattr(annotation, "__metadata__", ())
    return "person" in marks or any(_marked(inner) for inner in get_args(annotation))
