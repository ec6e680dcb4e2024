"""Maps a push to facts of the catalogue. Pure: the same push gives the same facts, now and in every replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter, ValidationError

from connectors.http.settings import EventMap, Reply
from hub.config.expecting import Words
from hub.config.strict_json import Document, holds_replacement, read_json
from hub.errors import HubError, Place, RejectedError
from hub.expressions.engine import Engine
from hub.expressions.expression import Condition, Expression, Scope
from hub.expressions.templates import Template
from hub.kit.connector import Delivery, Fact, Instance, Unmapped
from hub.kit.facts import person_fields
from hub.kit.settings import expected, short
from schemas.envelope import Name, Reference, read_time
from schemas.registry import event_spec

EXPRESSION_NAMES = ("body", "headers")
_REFERENCE: TypeAdapter[str] = TypeAdapter(Reference)
_NAME: TypeAdapter[str] = TypeAdapter(Name)

Path = tuple[str | int, ...]
PlaceOf = Callable[[Path], Place]


@dataclass(frozen=True)
class EventMapping:
    """One entry of `receive.events`, compiled. `place` gives the place in hub.yaml of the setting at a path below it."""

    type: str
    condition: Condition
    fields: Mapping[str, Template]
    data: Template
    clears: tuple[str, ...]
    place: PlaceOf

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """All expressions that it evaluates."""
        templates = (*self.fields.values(), self.data)
        return (self.condition.expression, *(each for template in templates for each in template.expressions))

    def text(self, field: str, scope: Scope) -> str | None:
        """A field that is text: whole numbers are written out, null is None; raises RejectedError for anything else."""
        value = self.fields[field].render(scope) if field in self.fields else None
        if value is None or (isinstance(value, str) and value):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise self.wrong(field, '"…"', value)

    def reference(self, field: str, scope: Scope) -> str | None:
        """A field that names an object: `kind/instance/id`."""
        value = self.text(field, scope)
        try:
            return value if value is None else _REFERENCE.validate_python(value)
        except ValidationError:
            raise self.wrong(field, "opportunity/crm/1024", value) from None

    def wrong(self, field: str, wanted: str | Words, got: object, *path: str | int) -> RejectedError:
        """The error for a value that no event may have."""
        shown = ".".join(map(str, (field, *path)))
        place = self.place((field, *path))
        return RejectedError("HUB-E4222", place=place, field=shown, expected=wanted, got=short(got))


def compile_event(event: EventMap, place: PlaceOf, engine: Engine) -> EventMapping:
    """Compile one entry; raises FatalError with the exact place for an expression that cannot be read."""
    given = {name: getattr(event, name) for name in ("subject", "version", "time", "actor", "belongs_to", "origin")}
    fields = {
        name: engine.template(value, EXPRESSION_NAMES, _under(place, name))
        for name, value in given.items()
        if value is not None
    }
    condition = engine.condition(event.condition, EXPRESSION_NAMES, place(("if",)))
    data = engine.template(event.data, EXPRESSION_NAMES, _under(place, "data"))
    return EventMapping(event.type, condition, fields, data, event.clears, place)


def _under(place: PlaceOf, name: str) -> PlaceOf:
    return lambda path: place((name, *path))


@dataclass(frozen=True)
class WebhookReply:
    """The answer to a push, and the condition that selects the push."""

    condition: Condition
    body: Template


def compile_reply(reply: Reply, instance: Instance, engine: Engine) -> WebhookReply:
    """Compile; raises FatalError with the exact place for an expression that cannot be read."""
    condition = engine.condition(reply.condition, EXPRESSION_NAMES, instance.place(("receive", "answer", "if")))
    body = engine.template(
        reply.body, EXPRESSION_NAMES, lambda path: instance.place(("receive", "answer", "json", *path))
    )
    return WebhookReply(condition, body)


def scope_of(delivery: Delivery, document: Document, engine: Engine) -> Scope:
    """The scope in which expressions read a delivery."""
    return engine.scope({"body": document, "headers": dict(delivery.headers)})


def holds(condition: Condition, scope: Scope) -> bool:
    """Whether a condition holds; one that cannot be evaluated does not."""
    try:
        return condition.test(scope)
    except HubError:
        return False


def is_ping(body: Any) -> bool:
    """Whether a push only tests the URL: `{}`, GitHub's ping, or one whose kind is `ping`."""
    if not isinstance(body, dict):
        return False
    if not body or {"zen", "hook_id"} <= body.keys():
        return True
    return any(str(body.get(name)).lower() == "ping" for name in ("type", "event", "event_type", "action"))


def facts(
    delivery: Delivery,
    entries: Sequence[EventMapping],
    engine: Engine,
    instance: str,
    zone: ZoneInfo,
    ignored: Sequence[Condition] = (),
) -> tuple[Fact | Unmapped, ...]:
    """Map a delivery: a fact for each entry whose `if` is true, Unmapped where the mapping fails.

    An `if` that raises gives no fact; all that raise give one Unmapped together, unless the push only tests the URL. A push on
    which one of `ignored` holds gives nothing. Raises RejectedError when the body is not JSON.
    """
    document = read_json(delivery.body)
    scope = scope_of(delivery, document, engine)
    if any(holds(condition, scope) for condition in ignored):
        return ()
    mapped: list[Fact | Unmapped] = []
    unclear: list[Unmapped] = []
    for entry in entries:
        try:
            if entry.condition.test(scope):
                mapped.append(_fact_or_unmapped(entry, delivery, scope, instance, zone, document.broken))
        except HubError as error:
            unclear.append(_unmapped(entry, delivery, instance, None, error))
    if unclear and not mapped and is_ping(document.value):
        return ()
    return (*mapped, *unclear[:1])


def _fact_or_unmapped(
    entry: EventMapping, delivery: Delivery, scope: Scope, instance: str, zone: ZoneInfo, broken: bool
) -> Fact | Unmapped:
    """Map the subject first: if the rest fails, later facts of that subject must wait.

    `broken`: the body has broken characters; they fail the mapping only where the fact would hold one.
    """
    subject = None
    try:
        subject = entry.reference("subject", scope)
        fact = _fact(entry, subject, delivery, scope, zone)
        if broken:
            _check_whole(entry, fact)
        return fact
    except HubError as error:
        return _unmapped(entry, delivery, instance, subject, error)


def _unmapped(entry: EventMapping, delivery: Delivery, instance: str, subject: str | None, error: HubError) -> Unmapped:
    seen = {"type": entry.type, "instance": instance, **error.seen}  # the error's own facts win
    return Unmapped(delivery.body, error.code, seen, subject, error.place)


def _fact(entry: EventMapping, subject: str | None, delivery: Delivery, scope: Scope, zone: ZoneInfo) -> Fact:
    if subject is None:
        raise entry.wrong("subject", "opportunity/crm/1024", None)
    data = _data(entry, scope)
    return Fact(
        type=entry.type,
        subject=subject,
        version=_version(entry, scope),
        time=_time(entry, delivery, scope, zone),
        data=data,
        belongs_to=entry.reference("belongs_to", scope),
        actor=entry.text("actor", scope),
        origin=entry.text("origin", scope),
        clears=tuple(name for name in entry.clears if data.get(name) is None),
    )


def _check_whole(entry: EventMapping, fact: Fact) -> None:
    """Refuse a fact that holds a replacement character, which marks a lost one."""
    named = ("subject", "version", "belongs_to", "actor", "origin")
    outer: list[tuple[tuple[str, ...], Any]] = [((name,), getattr(fact, name)) for name in named]
    for path, value in outer + [(("data", key), value) for key, value in fact.data.items()]:
        if holds_replacement(value):
            raise RejectedError("HUB-E3133", place=entry.place(path), field=".".join(path))


def _version(entry: EventMapping, scope: Scope) -> str:
    """The source's own version; empty where the settings map none: intake then uses the delivery's id."""
    if "version" not in entry.fields:
        return ""
    version = entry.text("version", scope)
    try:
        return _NAME.validate_python(version)
    except ValidationError:
        raise entry.wrong("version", '"7"', version) from None


def _time(entry: EventMapping, delivery: Delivery, scope: Scope, zone: ZoneInfo) -> datetime:
    """The fact's time: RFC 3339, or `2026-11-20 10:00:00` in the system's own `zone`, as many systems write it."""
    if "time" not in entry.fields:
        return delivery.received
    value = entry.fields["time"].render(scope)
    try:
        return read_time(value, zone)
    except (TypeError, ValueError):
        raise entry.wrong("time", "2026-11-20T10:00:00+08:00", value) from None


def _data(entry: EventMapping, scope: Scope) -> Mapping[str, Any]:
    """The event's data, validated against the catalogue here, where the place of each field is known."""
    model = event_spec(entry.type).model
    data: dict[str, Any] = entry.data.render(scope)
    for name in person_fields(model) & data.keys():
        data[name] = _account(data[name])
    for name in entry.clears:
        if data.get(name) in (None, ""):
            data[name] = None
    try:
        model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "missing":
            field = ".".join(map(str, first["loc"]))
            raise RejectedError("HUB-E4223", place=entry.place(("data",)), type=entry.type, field=field) from None
        raise entry.wrong("data", expected(first), first["input"], first["loc"][0]) from None
    return data


def _account(value: Any) -> Any:
    """Many systems number their users; an account is text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
