"""Outside → outbox: what a connector tells is made durable, each fact once, in order, under its case.

One push, or one page with its cursor, is one transaction; the sender hears of success only after it has committed. What
cannot become an event is parked with its bytes, and later news of the same object wait behind it.
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
from hub.intake.batch_intake import News
from hub.intake.readers import UnavailableError
from hub.kit.connector import Delivery, Fact, Unmapped, WebhookSource
from hub.kit.facts import Door, PeopleLookup, event_of
from hub.ledger import conflicts, cursors, outbox, parked
from hub.ledger.ledger import Ledger
from hub.ledger.links import ALL, KnownObject, look
from hub.ledger.parked_quota import Quotas
from hub.runtime.clock import Clock
from schemas.envelope import MAX_BYTES, OUTSIDE, Event, derived_id, format_time

WAITS, UNFORESEEN = "HUB-E6104", "HUB-E6105"
QUOTA = "HUB-E7014"
MARGIN = timedelta(seconds=10)
"""News of an object that may be ours are not held for calls that were asked for later than this: clocks may differ by less."""
FACT, RAW = "application/vnd.hub.fact+json", "application/vnd.hub.polled"
"""The content types of what was parked from a page: a fact, and the raw bytes of what could not be told."""
_NOTHING = frozenset[str]()
_PLAIN = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_PRIVATE = re.compile(r"signature|authorization|cookie|token|secret|key|password|auth", re.IGNORECASE)


@dataclass(frozen=True)
class ParkedBytes:
    """The bytes that something would be parked with."""

    ref: str
    body: bytes
    headers: Mapping[str, str]
    received: datetime


@dataclass(frozen=True)
class Refused:
    """Why something cannot become an event, and which object it is about, if that can be told."""

    subject: str | None
    code: str
    seen: Mapping[str, Any]
    place: Place | None = None

    @classmethod
    def by(cls, subject: str | None, error: HubError) -> Refused:
        """Refused for the reason that an error gives."""
        return cls(subject, error.code, error.seen, error.place)


Item = tuple[Event | Refused, ParkedBytes]


@dataclass(frozen=True)
class Accepted:
    """What became of a push: `id` names it in the hub, `events` are those it tells of, new or known."""

    id: str
    events: tuple[str, ...]


@dataclass(frozen=True)
class _Push:
    """A push on its way into the ledger."""

    instance: str
    items: Sequence[Item]
    accepted: Accepted


class QuotaError(UnavailableError):
    """So much of this instance is parked that no more can be: a person has to look at it first."""


class Intake:
    """The door for every instance. For any thread; `push` and `page` return at once with a future of the commit."""

    def __init__(
        self,
        ledger: Ledger,
        people: PeopleLookup,
        clock: Clock,
        creates: correlation.Creates | None = None,
        quotas: Mapping[str, Quota] | None = None,
    ) -> None:
        self._ledger, self._people, self._clock = ledger, people, clock
        self._creates, self._quotas = creates or {}, Quotas(quotas)

    def push(self, instance: str, receiver: WebhookSource, delivery: Delivery) -> Future[Accepted]:
        """Take in a verified push. Raises RejectedError for no JSON; everything else is kept, one way or another.

        The future raises QuotaError for a push that would be parked where too much of its instance is.
        """
        name = delivery_ref(instance, receiver, delivery)
        items = self.items(instance, receiver, delivery)
        events = tuple([told.id for told, _ in items if isinstance(told, Event)])
        return self._ledger.writer.gather(self._take_in_all, _Push(instance, items, Accepted(name, events)))

    def _take_in_all(self, conn: Connection, pushes: Sequence[_Push]) -> Sequence[Accepted]:
        """Take pushes in, in their order."""
        news = self._news(conn, [(item, push.instance) for push in pushes for item in push.items])
        for push in pushes:
            self._allow(conn, push, self._add(conn, news, push.instance, push.items))
        news.write()
        return [push.accepted for push in pushes]

    def _news(self, conn: Connection, items: Iterable[tuple[Item, str]]) -> News:
        return News(conn, [(told, instance) for (told, _), instance in items if isinstance(told, Event)], self._creates)

    def _add(self, conn: Connection, news: News, instance: str, items: Sequence[Item]) -> frozenset[str]:
        """As `take_in`: what is plain together, at the next write of the news, all else by itself."""
        refused = frozenset[str]()
        for item in items:
            told, _ = item
            if isinstance(told, Event) and news.is_plain(told, instance):
                news.add(told, instance)
                continue
            news.write()
            refused |= self.take_in(conn, instance, [item])
            news.changed(told.subject or "", *((told.partitionkey,) if isinstance(told, Event) else ()))
        return refused

    def _allow(self, conn: Connection, push: _Push, refused: frozenset[str]) -> None:
        """Raises QuotaError, and so takes the push back, when what it has parked is more than its instance may have parked."""
        sizes = [len(kept.body) for _, kept in push.items if kept.ref in refused]
        if sizes and not self._quotas.allow(conn, push.instance, len(sizes), sum(sizes)):
            raise QuotaError(QUOTA)

    def items(
        self, instance: str, receiver: WebhookSource, delivery: Delivery, corrected: bytes | None = None
    ) -> Sequence[Item]:
        """What a delivery says, each part with the bytes to park it with. A delivery that says nothing is an event too.

        What was corrected is read instead of the body; its names and ids are still those of the body.
        """
        name = delivery_ref(instance, receiver, delivery)
        kept = ParkedBytes(name, delivery.body, public(delivery.headers), delivery.received)
        try:
            told = receiver.read(delivery if corrected is None else replace(delivery, body=corrected))
        except HubError:
            raise
        except Exception as error:
            return [(Refused.by(None, unforeseen(instance, error)), kept)]
        if not told:
            return [(_ignored(instance, name, delivery, self._clock.now()), kept)]
        version = receiver.id_of(delivery) or _digest(delivery.body)
        first = (self._told(told[0], self._door(instance, version)), kept)
        more = [
            (self._told(one, self._door(instance, f"{version}#{at}")), replace(kept, ref=f"{name}#{at}"))
            for at, one in enumerate(told[1:], 2)
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
        """Take in what a poll brought and move its cursor. False, and nothing kept, when `mine` says it is another's job.

        `ahead` is what the page says of the source's clock.
        """
        items = [self.polled(instance, fact) for fact in facts]

        def work(conn: Connection) -> bool:
            if not mine(conn):
                return False
            news = self._news(conn, [(item, instance) for item in items])
            self._add(conn, news, instance, items)
            news.write()
            cursors.move(conn, instance, stream, cursor, format_time(self._clock.now()), ahead)
            return True

        return self._ledger.writer.submit(work)

    def take_in(self, conn: Connection, instance: str, items: Sequence[Item], before: int = ALL) -> frozenset[str]:
        """Record or park each in order; the refs of what was parked.

        Of what is parked already, only entries with an id under `before` are waited for.
        """
        refused = set[str]()
        for told, kept in items:
            known = None if isinstance(told, Refused) else look(conn, told.subject, before)
            if isinstance(told, Refused):
                self.park(conn, instance, told, kept)
                refused.add(kept.ref)
            elif known is not None and known.waits and not outbox.is_known(conn, told.id):
                self.park(conn, instance, Refused(told.subject, WAITS, {"subject": told.subject}), kept)
                refused.add(kept.ref)
            elif known is not None and not known.waits:
                self._record(conn, instance, told, known)
        return frozenset(refused)

    def park(self, conn: Connection, instance: str, refused: Refused, kept: ParkedBytes) -> None:
        """Keep something aside with its bytes. What a person has discarded, or corrected, stays so when it is sent again."""
        there = parked.find(conn, kept.ref)
        if there is not None and (
            there.state == "discarded" or (there.state == "done" and there.correction is not None)
        ):
            return
        row: dict[str, Any] = {
            "ref": kept.ref,
            "kind": "delivery",
            "instance": instance,
            "subject": refused.subject,
            "code": refused.code,
            "seen": {name: str(fact) for name, fact in refused.seen.items()},
            "place": str(refused.place) if refused.place else None,
            "headers": dict(kept.headers),
            "body": kept.body,
            "parked_at": format_time(kept.received),
        }
        parked.park(conn, row)

    def _record(self, conn: Connection, instance: str, event: Event, known: KnownObject) -> None:
        case = correlation.case_of(conn, event, known, instance, self._creates.get(instance, _NOTHING))
        if case is None:
            new = outbox.hold(conn, event, instance, format_time(self._clock.now() + MARGIN))
        else:
            new = outbox.record(conn, [correlation.under(event, case)], instance)
        if not new:
            conflicts.look(conn, [(event, instance)])

    def _door(self, instance: str, fallback: str) -> Door:
        return Door(instance, self._people, self._clock.now(), fallback)

    def _told(self, told: Fact | Unmapped, door: Door) -> Event | Refused:
        if isinstance(told, Unmapped):
            return Refused(told.subject, told.code, told.seen, told.place)
        try:
            return event_of(told, door)
        except RejectedError as error:
            return Refused.by(told.subject, error)
        except Exception as error:
            return Refused.by(told.subject, unforeseen(door.instance, error))

    def polled(self, instance: str, told: Fact | Unmapped) -> Item:
        """One thing that a poll brought, with the bytes to park it with."""
        raw = isinstance(told, Unmapped)
        body = told.raw if isinstance(told, Unmapped) else fact_json(told)
        digest = _digest(body)
        kept = ParkedBytes(
            f"delivery/{instance}/{digest[:32]}", body, {"content-type": RAW if raw else FACT}, self._clock.now()
        )
        return self._told(told, self._door(instance, digest)), kept


def delivery_ref(instance: str, receiver: WebhookSource, delivery: Delivery) -> str:
    """The name of a verified delivery: the same push again has the same name, another body never has."""
    given = receiver.id_of(delivery)
    digest = hashlib.sha256((given or "").encode() + b"\n" + delivery.body).hexdigest()
    if given is not None and _PLAIN.fullmatch(given):
        return f"delivery/{instance}/{given}~{digest[:8]}"
    return f"delivery/{instance}/{digest[:32]}"


def fact_json(fact: Fact) -> bytes:
    """A fact as bytes, the same for the same fact; `hub.intake.deferred_intake` reads it back."""
    told: dict[str, Any] = {
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
        told["clears"] = list(fact.clears)
    return orjson.dumps(told, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


def unforeseen(instance: str, error: Exception) -> RejectedError:
    """What no one foresaw in a mapping: its kind and place, without the values, which may be anybody's."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    reason = f"{type(error).__name__} ({where.name}, line {where.lineno})"
    return RejectedError(UNFORESEEN, instance=instance, reason=reason)


def _ignored(instance: str, name: str, delivery: Delivery, now: datetime) -> Event:
    """The event of a push that matches nothing: kept, so that nothing vanishes. A long body is cut, its hash is not."""
    text = delivery.body.decode(errors="replace")
    whole = len(text.encode()) <= MAX_BYTES // 4
    data = {"body": text if whole else text[: MAX_BYTES // 16]}
    if not whole:
        data |= {"cut_from": str(len(delivery.body)), "sha256": hashlib.sha256(delivery.body).hexdigest()}
    type_ = "hub.delivery.ignored"
    return Event(
        id=derived_id(instance, type_, name),
        source=f"{OUTSIDE}{instance}",
        type=type_,
        subject=name,
        time=format_time(delivery.received),
        recordedtime=format_time(now),
        dataschema=f"urn:hub:{type_}:1",
        partitionkey=name,
        correlationid=name,
        data=data,
    )


def public(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that may be kept: none that could hold a secret or a signature."""
    return {name: value for name, value in headers.items() if not _is_private(name)}


@functools.lru_cache(1024)
def _is_private(name: str) -> bool:
    return _PRIVATE.search(name) is not None


def _digest(body: bytes) -> str:
    """The sha256 of a body, of its canonical JSON where it is JSON."""
    body = body.removeprefix(BOM)
    with contextlib.suppress(orjson.JSONDecodeError):  # what is no JSON is told apart by its bytes
        body = orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(body).hexdigest()
