"""Converts a connector's fact to an event. Pure: the same fact, people and time give the same event.

An invalid fact is rejected here, at intake, with the field and the reason: every event in the outbox is valid.
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
from schemas.envelope import CONNECTOR_SOURCE, MAX_BYTES, Event, derived_ids, format_time
from schemas.registry import EventSpec, Model, event_spec

MAX_CLOCK_LEAD = timedelta(minutes=5)
"""How far a source's clock may be ahead of ours. A later time is clamped to that, so that no wrong clock delays time-based work."""
OLDEST_TIME, MAX_FUTURE = datetime(1970, 1, 1, tzinfo=UTC), timedelta(days=1)
"""The range of accepted times, from `OLDEST_TIME` to now + `MAX_FUTURE`: times outside usually mean "unknown" or "never"."""

MAX_ENVELOPE_BYTES = 32 * 1024
"""Upper bound of an event's size without its data: all attributes at maximum length, each byte escaped."""


_ids = functools.lru_cache(1024)(derived_ids)


class PeopleLookup(Protocol):
    """Resolves accounts by the current people.yaml."""

    def person_of(self, instance: str, account: str) -> str | None:
        """`person/<id>` of an account at an instance, None for an unknown account."""


@dataclass(frozen=True)
class IntakeContext:
    """Instance, people and time of an intake. `fallback` is the version of a fact whose connector gives none."""

    instance: str
    people: PeopleLookup
    now: datetime
    fallback: str

    def person(self, account: str) -> str:
        """The person of an account; a reference is returned unchanged."""
        if account.startswith(("person/", "account/")):
            return account
        return self.people.person_of(self.instance, account) or f"account/{self.instance}/{account}"


def event_of(fact: Fact, context: IntakeContext) -> Event:
    """The event of a fact, before correlation: `partitionkey` holds the object it belongs to, else its subject.

    Raises RejectedError with field and reason for data that the registry does not allow, for a time out of range, and for an event
    over MAX_BYTES.
    """
    spec = event_spec(fact.type)
    named = _with_persons(fact.data, spec.model, context)
    clears = [name for name in dict.fromkeys(fact.clears) if named.get(name) is None]
    data = _checked(spec, fact, {**named, **dict.fromkeys(clears)})
    anchor = fact.belongs_to or fact.subject
    latest = context.now + MAX_CLOCK_LEAD
    try:
        if not OLDEST_TIME <= fact.time <= context.now + MAX_FUTURE:
            raise RejectedError("HUB-E6110", type=fact.type, subject=fact.subject, time=fact.time.isoformat())
        event = Event(
            id=_ids(context.instance, fact.type)(fact.subject, fact.version or context.fallback),
            source=f"{CONNECTOR_SOURCE}{context.instance}",
            type=fact.type,
            subject=fact.subject,
            time=format_time(min(fact.time, latest)),
            claimedtime=format_time(fact.time) if fact.time > latest else None,
            recordedtime=format_time(context.now),
            dataschema=spec.dataschema,
            partitionkey=anchor,
            correlationid=anchor,
            causationid=fact.origin,
            subjectversion=fact.version or None,
            actor=context.person(fact.actor) if fact.actor else None,
            origin=fact.origin,
            clears=clears or None,
            data=data,
        )
        size = _size(event)
    except (ValidationError, TypeError, ValueError) as error:
        field, reason = _problem(error)
        raise RejectedError("HUB-E6102", type=fact.type, subject=fact.subject, field=field, reason=reason) from error
    if size > MAX_BYTES:
        raise RejectedError("HUB-E6103", type=fact.type, subject=fact.subject, size=size, limit=MAX_BYTES)
    return event


def _size(event: Event) -> int:
    """Bytes of its JSON, or an upper bound within the limit: encoding the whole event takes a twentieth of a webhook's time."""
    bound = len(orjson.dumps(event.data)) + MAX_ENVELOPE_BYTES
    return bound if bound <= MAX_BYTES else len(event.to_json())


def _checked(spec: EventSpec, fact: Fact, data: dict[str, Any]) -> dict[str, Any]:
    try:
        return spec.model.model_validate(data).model_dump(mode="json", exclude_unset=True)
    except (ValidationError, TypeError, ValueError, RecursionError) as error:
        field, reason = _problem(error)
        raise RejectedError("HUB-E6101", type=fact.type, subject=fact.subject, field=field, reason=reason) from error


def _problem(error: Exception) -> tuple[str, str]:
    """The field and the reason, without the value: it may be personal data."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return ".".join(map(str, first["loc"])) or "data", first["msg"]
    return "data", str(error)[:200]


def _with_persons(data: Mapping[str, Any], model: Model, context: IntakeContext) -> dict[str, Any]:
    """The data with accounts resolved to persons. A field with an empty account is removed."""
    named = dict(data)
    for field in person_fields(model) & named.keys():
        value = named[field]
        if value == "":
            del named[field]
        elif isinstance(value, str | int) and not isinstance(value, bool):
            named[field] = context.person(str(value))
    return named


@functools.cache
def person_fields(model: Model) -> frozenset[str]:
    """The fields of a model that name a person."""
    fields = model.model_fields.items()
    return frozenset(name for name, field in fields if "person" in field.metadata or _is_person(field.annotation))


def _is_person(annotation: object) -> bool:
    metadata = getattr(annotation, "__metadata__", ())
    return "person" in metadata or any(_is_person(inner) for inner in get_args(annotation))
