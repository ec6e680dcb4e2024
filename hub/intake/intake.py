"""Intake, from outside system to outbox: records the facts of a connector durably, each once, in order, under its case.

One push, or one page with its cursor, is one transaction; the sender gets its acknowledgement only after the commit. What cannot
become an event is parked with its bytes, and later events about the same object wait behind it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection

from hub.config.settings import Quota
from hub.config.strict_json import BOM
from hub.errors import HubError, Place, RejectedError
from hub.intake import correlation
from hub.intake.batch_intake import EventBatch
from hub.intake.readers import UnavailableError
from hub.kit.connector import Delivery, Fact, Unmapped, WebhookSource
from hub.kit.facts import IntakeContext, PeopleLookup, event_of
from hub.ledger import conflicts, cursors, outbox, parked
from hub.ledger.ledger import Ledger
from hub.ledger.links import NO_UPPER_BOUND, KnownObject, known_object
from hub.ledger.parked_quota import Quotas
from hub.runtime.clock import Clock
from schemas.envelope import CONNECTOR_SOURCE, MAX_BYTES, Event, derived_id, format_time

BEHIND_PARKED, UNEXPECTED = "HUB-E6104", "HUB-E6105"
QUOTA_EXCEEDED = "HUB-E7014"
CLOCK_SKEW_MARGIN = timedelta(seconds=10)
"""Allowance for clock skew: an event about an object that a command may have created is held for calls accepted up to this much
later than the event."""
FACT_CONTENT_TYPE, RAW_CONTENT_TYPE = "application/vnd.hub.fact+json", "application/vnd.hub.polled"
"""The content types of parked parts of a page: a fact, and the raw bytes of what the mapping could not read."""
_NO_KINDS = frozenset[str]()
_PLAIN = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_PRIVATE = re.compile(r"signature|authorization|cookie|token|secret|key|password|auth", re.IGNORECASE)


@dataclass(frozen=True)
class ParkedBytes:
    """The bytes and headers with which an item is parked, if it has to be."""

    ref: str
    body: bytes
    headers: Mapping[str, str]
    received: datetime


@dataclass(frozen=True)
class ParkReason:
    """Why an item is parked instead of recorded, and which object it is about, if known."""

    subject: str | None
    code: str
    seen: Mapping[str, Any]
    place: Place | None = None

    @classmethod
    def by(cls, subject: str | None, error: HubError) -> ParkReason:
        """The reason that an error gives."""
        return cls(subject, error.code, error.seen, error.place)


Item = tuple[Event | ParkReason, ParkedBytes]


@dataclass(frozen=True)
class Accepted:
    """The result of a push: `id` is its name in the hub, `events` are the ids of its events, new or known."""

    id: str
    events: tuple[str, ...]


@dataclass(frozen=True)
class _Push:
    """A push with its items, to be written to the ledger."""

    instance: str
    items: Sequence[Item]
    accepted: Accepted


class QuotaError(UnavailableError):
    """The instance's quota of parked deliveries is used up; a person has to settle some first."""


class Intake:
    """Records the events of all instances. Thread-safe; `push` and `page` return at once with a future of the commit."""

    def __init__(
        self,
        ledger: Ledger,
        people: PeopleLookup,
        clock: Clock,
        creates: correlation.CreatedKinds | None = None,
        quotas: Mapping[str, Quota] | None = None,
    ) -> None:
        self._ledger, self._people, self._clock = ledger, people, clock
        self._creates, self._quotas = creates or {}, Quotas(quotas)

    def push(self, instance: str, receiver: WebhookSource, delivery: Delivery) -> Future[Accepted]:
        """Record a verified push. Raises RejectedError when it is no JSON; everything else is recorded or parked.

        The future raises QuotaError when parking the push would exceed its instance's quota.
        """
        name = delivery_ref(instance, receiver, delivery)
        items = self.items(instance, receiver, delivery)
        events = tuple([outcome.id for outcome, _ in items if isinstance(outcome, Event)])
        return self._ledger.writer.gather(self._take_in_pushes, _Push(instance, items, Accepted(name, events)))

    def _take_in_pushes(self, conn: Connection, pushes: Sequence[_Push]) -> Sequence[Accepted]:
        """Record pushes in their order."""
        batch = self._batch_of(conn, [(item, push.instance) for push in pushes for item in push.items])
        for push in pushes:
            self._check_quota(conn, push, self._add(conn, batch, push.instance, push.items))
        batch.write()
        return [push.accepted for push in pushes]

    def _batch_of(self, conn: Connection, items: Iterable[tuple[Item, str]]) -> EventBatch:
        return EventBatch(
            conn, [(outcome, instance) for (outcome, _), instance in items if isinstance(outcome, Event)], self._creates
        )

    def _add(self, conn: Connection, batch: EventBatch, instance: str, items: Sequence[Item]) -> frozenset[str]:
        """As `take_in`, but plain events are added to the batch and written together; every other item is written by itself."""
        parked_refs = frozenset[str]()
        for item in items:
            outcome, _ = item
            if isinstance(outcome, Event) and batch.is_plain(outcome, instance):
                batch.add(outcome, instance)
                continue
            batch.write()
            parked_refs |= self.take_in(conn, instance, [item])
            batch.changed(outcome.subject or "", *((outcome.partitionkey,) if isinstance(outcome, Event) else ()))
        return parked_refs

    def _check_quota(self, conn: Connection, push: _Push, parked_refs: frozenset[str]) -> None:
        """Raises QuotaError, which rolls the push back, when its parked items exceed the instance's quota."""
        sizes = [len(source.body) for _, source in push.items if source.ref in parked_refs]
        if sizes and not self._quotas.allow(conn, push.instance, len(sizes), sum(sizes)):
            raise QuotaError(QUOTA_EXCEEDED)

    def items(
        self, instance: str, receiver: WebhookSource, delivery: Delivery, corrected: bytes | None = None
    ) -> Sequence[Item]:
        """The items of a delivery, each with the bytes to park it with. A delivery without facts gives an "ignored" event.

        `corrected` is read in place of the body; refs and ids still derive from the body.
        """
        name = delivery_ref(instance, receiver, delivery)
        source = ParkedBytes(name, delivery.body, storable_headers(delivery.headers), delivery.received)
        try:
            facts = receiver.read(delivery if corrected is None else replace(delivery, body=corrected))
        except HubError:
            raise
        except Exception as error:
            return [(ParkReason.by(None, unexpected_error(instance, error)), source)]
        if not facts:
            return [(_ignored(instance, name, delivery, self._clock.now()), source)]
        version = receiver.id_of(delivery) or _digest(delivery.body)
        first = (self._outcome(facts[0], self._context(instance, version)), source)
        more = [
            (self._outcome(fact, self._context(instance, f"{version}#{at}")), replace(source, ref=f"{name}#{at}"))
            for at, fact in enumerate(facts[1:], 2)
        ]
        return [first, *more]

    def page(
        self,
        instance: str,
        stream: str,
        facts: Iterable[Fact | Unmapped],
        cursor: str,
        mine: Callable[[Connection], bool],
        ahead: float | None = None,
    ) -> Future[bool]:
        """Record a polled page and move its cursor. False, and nothing written, when `mine` returns False: another owner polls.

        `ahead`: seconds by which the source's clock is ahead, None when the page does not show it.
        """
        items = [self.polled(instance, fact) for fact in facts]

        def work(conn: Connection) -> bool:
            if not mine(conn):
                return False
            batch = self._batch_of(conn, [(item, instance) for item in items])
            self._add(conn, batch, instance, items)
            batch.write()
            cursors.move(conn, instance, stream, cursor, format_time(self._clock.now()), ahead)
            return True

        return self._ledger.writer.submit(work)

    def take_in(
        self, conn: Connection, instance: str, items: Sequence[Item], before: int = NO_UPPER_BOUND
    ) -> frozenset[str]:
        """Record or park each item in order; returns the refs of the parked ones.

        An event waits only behind parked entries with an id below `before`.
        """
        parked_refs = set[str]()
        for outcome, source in items:
            known = None if isinstance(outcome, ParkReason) else known_object(conn, outcome.subject, before)
            if isinstance(outcome, ParkReason):
                self.park(conn, instance, outcome, source)
                parked_refs.add(source.ref)
            elif known is not None and known.waits and not outbox.is_known(conn, outcome.id):
                reason = ParkReason(outcome.subject, BEHIND_PARKED, {"subject": outcome.subject})
                self.park(conn, instance, reason, source)
                parked_refs.add(source.ref)
            elif known is not None and not known.waits:
                self._record(conn, instance, outcome, known)
        return frozenset(parked_refs)

    def park(self, conn: Connection, instance: str, reason: ParkReason, source: ParkedBytes) -> None:
        """Park an item with its bytes. An entry that a person has discarded or corrected stays settled when it is sent again."""
        entry = parked.find(conn, source.ref)
        if entry is not None and (
            entry.state == "discarded" or (entry.state == "done" and entry.correction is not None)
        ):
            return
        row: dict[str, Any] = {
            "ref": source.ref,
            "kind": "delivery",
            "instance": instance,
            "subject": reason.subject,
            "code": reason.code,
            "seen": {name: str(value) for name, value in reason.seen.items()},
            "place": str(reason.place) if reason.place else None,
            "headers": dict(source.headers),
            "body": source.body,
            "parked_at": format_time(source.received),
        }
        parked.park(conn, row)

    def _record(self, conn: Connection, instance: str, event: Event, known: KnownObject) -> None:
        case = correlation.case_of(conn, event, known, instance, self._creates.get(instance, _NO_KINDS))
        if case is None:
            new = outbox.hold(conn, event, instance, format_time(self._clock.now() + CLOCK_SKEW_MARGIN))
        else:
            new = outbox.record(conn, [correlation.with_case(event, case)], instance)
        if not new:
            conflicts.detect(conn, [(event, instance)])

    def _context(self, instance: str, fallback: str) -> IntakeContext:
        return IntakeContext(instance, self._people, self._clock.now(), fallback)

    def _outcome(self, fact: Fact | Unmapped, context: IntakeContext) -> Event | ParkReason:
        if isinstance(fact, Unmapped):
            return ParkReason(fact.subject, fact.code, fact.seen, fact.place)
        try:
            return event_of(fact, context)
        except RejectedError as error:
            return ParkReason.by(fact.subject, error)
        except Exception as error:
            return ParkReason.by(fact.subject, unexpected_error(context.instance, error))

    def polled(self, instance: str, fact: Fact | Unmapped) -> Item:
        """The item of one part of a polled page, with the bytes to park it with."""
        raw = isinstance(fact, Unmapped)
        body = fact.raw if isinstance(fact, Unmapped) else fact_json(fact)
        digest = _digest(body)
        source = ParkedBytes(
            f"delivery/{instance}/{digest[:32]}",
            body,
            {"content-type": RAW_CONTENT_TYPE if raw else FACT_CONTENT_TYPE},
            self._clock.now(),
        )
        return self._outcome(fact, self._context(instance, digest)), source


def delivery_ref(instance: str, receiver: WebhookSource, delivery: Delivery) -> str:
    """The ref of a verified delivery: a redelivered push has the same ref, another body never has it."""
    given = receiver.id_of(delivery)
    digest = hashlib.sha256((given or "").encode() + b"\n" + delivery.body).hexdigest()
    if given is not None and _PLAIN.fullmatch(given):
        return f"delivery/{instance}/{given}~{digest[:8]}"
    return f"delivery/{instance}/{digest[:32]}"


def fact_json(fact: Fact) -> bytes:
    """A fact as canonical JSON bytes; `hub.intake.deferred_intake` reads it back."""
    fields: dict[str, Any] = {
        "type": fact.type,
        "subject": fact.subject,
        "version": fact.version,
        "time": fact.time.isoformat(),
        "data": dict(fact.data),
        "belongs_to": fact.belongs_to,
        "actor": fact.actor,
        "origin": fact.origin,
    }
    if fact.clears:
        fields["clears"] = list(fact.clears)
    return orjson.dumps(fields, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


def unexpected_error(instance: str, error: Exception) -> RejectedError:
    """The error of an unexpected exception in a mapping: its class and place, without values, which may be personal data."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    reason = f"{type(error).__name__} ({where.name}, line {where.lineno})"
    return RejectedError(UNEXPECTED, instance=instance, reason=reason)


def _ignored(instance: str, name: str, delivery: Delivery, now: datetime) -> Event:
    """The event of a push without facts, so that no push vanishes. A long body is truncated, with the hash of the whole."""
    text = delivery.body.decode(errors="replace")
    whole = len(text.encode()) <= MAX_BYTES // 4
    data = {"body": text if whole else text[: MAX_BYTES // 16]}
    if not whole:
        data |= {"cut_from": str(len(delivery.body)), "sha256": hashlib.sha256(delivery.body).hexdigest()}
    type_ = "hub.delivery.ignored"
    return Event(
        id=derived_id(instance, type_, name),
        source=f"{CONNECTOR_SOURCE}{instance}",
        type=type_,
        subject=name,
        time=format_time(delivery.received),
        recordedtime=format_time(now),
        dataschema=f"urn:hub:{type_}:1",
        partitionkey=name,
        correlationid=name,
        data=data,
    )


def storable_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that may be stored: none that could contain a secret or a signature."""
    return {name: value for name, value in headers.items() if not _is_private(name)}


@functools.lru_cache(1024)
def _is_private(name: str) -> bool:
    return _PRIVATE.search(name) is not None


def _digest(body: bytes) -> str:
    """The sha256 of a body, of its canonical JSON where it is JSON."""
    body = body.removeprefix(BOM)
    with contextlib.suppress(orjson.JSONDecodeError):  # not JSON: the digest of the bytes
        body = orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(body).hexdigest()
