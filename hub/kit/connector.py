"""What a connector is to the hub, and what each side may rely on.

A connector is made by its folder's `connect(instance)`. It offers any of three faces: it *receives* pushes, it *polls*
streams, it *sends* commands. It keeps no state of its own that a crash may not take: cursors, effects and deliveries are the
ledger's. Methods are plain blocking calls, run in threads; each may be called again with the same input after a crash.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hub.config.settings import Quota
from hub.errors import HubError, Place
from schemas.envelope import Command


@dataclass(frozen=True)
class Fact:
    """Something that happened, in the words of the catalogue, as a connector's mapping tells it.

    The same fact must always give the same `type`, `subject` and `version`: the event's id derives from them. People in
    `data` and `actor` are named by their account in the outside system; intake turns them into persons.
    """

    type: str
    subject: str
    version: str
    time: datetime
    data: Mapping[str, Any]
    belongs_to: str | None = None
    """The object whose case it follows; None when the subject itself is linked to a case or opens one."""
    actor: str | None = None
    origin: str | None = None
    """Our mark on the object, when this change is the echo of a command of ours."""
    clears: tuple[str, ...] = ()
    """Fields that are empty now over there, those without a value in `data`: what was known of them counts no more."""


@dataclass(frozen=True)
class Unmapped:
    """A fact that is there but cannot be told: it is parked with its bytes, and later ones of its subject wait behind it."""

    raw: bytes
    code: str
    seen: Mapping[str, Any]
    subject: str | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Page:
    """What one poll brought. The cursor is kept in the same transaction as the facts; `more` asks for the next page at once."""

    facts: tuple[Fact | Unmapped, ...]
    cursor: str
    more: bool = False
    ahead: float | None = None
    """Seconds by which the newest time that the source shows is ahead of our clock, 0 where it is not; None where this page
    cannot tell. A cursor never goes by such a time: what is changed before the clocks agree again would not be read."""


@dataclass(frozen=True)
class Delivery:
    """A push as it came: header names in lower case, the body byte for byte.

    Only what the sender's scheme signs is the sender's word; any other header may be anybody's.
    """

    headers: Mapping[str, str]
    body: bytes
    received: datetime


class Idempotency(enum.Enum):
    """How far the system itself keeps a command from being done twice."""

    KEY = "A"
    """It knows our key: the same key again is answered with the first result."""
    MARK = "B"
    """It can be asked whether an object carries our mark."""
    NEITHER = "C"
    """Neither: a doubtful command is parked for a person."""


@dataclass(frozen=True)
class Effect:
    """What a command did over there. `id` is the new object's id in that system, None where nothing has one."""

    id: str | None
    response: Mapping[str, Any] = field(default_factory=dict)
    facts: tuple[Fact, ...] = ()
    """What is true over there by it, where nothing else will tell: neither a push nor a poll. Recorded with the effect; people
    in it are named as the command named them."""


@dataclass(frozen=True)
class RateLimits:
    """How hard an instance may be driven."""

    per_second: float = 20.0
    at_once: int = 8
    timeout: float = 15.0
    """Seconds to wait for an answer."""
    settle: float = 2.0
    """Seconds to wait, after a doubtful call, before the system is asked whether it was done."""
    tries: int = 10
    """How often a command may be answered in a way that tells nothing before a person is asked."""


@dataclass(frozen=True)
class Instance:
    """One connected system: its name in hub.yaml and its settings, secrets filled in."""

    name: str
    use: str
    settings: Mapping[str, Any]
    place: Callable[[tuple[str | int, ...]], Place] = lambda path: Place("hub.yaml")
    """Where in hub.yaml a setting stands."""
    home: Path = Path()
    timezone: str = "UTC"


class WebhookSource(Protocol):
    """The face of a connector that systems push to."""

    def verify(self, delivery: Delivery) -> None:
        """Check the signature over the raw bytes; raises RejectedError when it is not the sender's or too old."""

    def id_of(self, delivery: Delivery) -> str | None:
        """The sender's own id of a verified delivery, where its signature covers one; else None: its content names it then."""

    def read(self, delivery: Delivery) -> tuple[Fact | Unmapped, ...]:
        """Tell what a verified delivery says. Empty: nothing that the mapping names. Raises RejectedError for no JSON."""


@runtime_checkable
class WebhookReplies(Protocol):
    """What a receiver may offer besides: an answer of its own to some pushes, as a platform asks for that tries an address."""

    def reply(self, delivery: Delivery) -> bytes | None:
        """The JSON to answer a verified delivery with; None for the usual answer."""


class PollingSource(Protocol):
    """The face of a connector that asks its system what is new."""

    @property
    def streams(self) -> tuple[str, ...]:
        """What is asked for, each with a cursor of its own."""

    @property
    def interval(self) -> float:
        """Seconds between polls when nothing more is there."""

    def poll(self, stream: str, cursor: str | None) -> Page:
        """Read what came after `cursor` (None: from now on or from the start, as the README says), oldest first.

        May give again what it gave before. Raises RetryableError while the system is away, FatalError for refused credentials.
        """


class CommandSink(Protocol):
    """The face of a connector that carries out commands."""

    @property
    def takes(self) -> frozenset[str]:
        """The types of command it carries out."""

    @property
    def limits(self) -> RateLimits:
        """How hard the instance may be driven."""

    def once(self, type_: str) -> Idempotency:
        """The idempotency class of a type of command."""

    def send(self, command: Command) -> Effect:
        """Carry it out, exactly one request that changes anything, stamped with the command's id.

        Promises in its arguments are resolved and persons are accounts. Raises UncertainError when it may have been done,
        RetryableError when it surely was not, RejectedError when it never will be, FatalError for refused credentials.
        """

    def find(self, command: Command) -> Effect | None:
        """Ask whether it was done: the effect, or None for surely not. Only called where `once` is MARK."""


@dataclass(frozen=True)
class Connector:
    """A connector's faces; None where it has none."""

    instance: Instance
    receives: WebhookSource | None = None
    polls: PollingSource | None = None
    sends: CommandSink | None = None
    knows_persons: bool = False
    """Whether its system knows people as the hub does: then persons in commands stay persons, and need no account there."""
    check: Callable[[], str] | None = None
    """Ask the system who we are, changing nothing: a line for people. Raises as `send` does."""
    quota: Quota = field(default_factory=Quota)
    """What of its deliveries may be parked at once."""
    remarks: tuple[HubError, ...] = ()
    """What in its settings is probably not meant, as warnings of `hub validate`."""
    reread: Callable[[bytes], tuple[Fact | Unmapped, ...]] | None = None
    """Tell again what a poll could not tell, from `Unmapped.raw`; None where that cannot be done. Asks the system nothing."""


Connect = Callable[[Instance], Connector]
"""The function `connect` that each folder's connector.py offers. Raises FatalError with a place for wrong settings."""
