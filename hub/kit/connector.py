"""The connector interface: its three capabilities, the values they exchange with the hub, and the guarantees on each side.

`connect(instance)` in a connector's folder makes it. A connector has any of three capabilities: `WebhookSource` receives
webhooks, `PollingSource` polls streams, `CommandSink` executes commands. It has no durable state of its own: cursors, effects and
deliveries are stored in the ledger. Methods are plain blocking calls, run in threads; each may be called again with the same
input after a crash.
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
    """Something that happened, mapped by a connector to a type of `schemas.registry`.

    The same fact must always give the same `type`, `subject` and `version`: the event's id derives from them. People in
    `data` and `actor` are accounts of the outside system; intake resolves them to persons.
    """

    type: str
    subject: str
    version: str
    time: datetime
    data: Mapping[str, Any]
    belongs_to: str | None = None
    """The object whose case it joins; None when the subject itself is linked to a case or opens one."""
    actor: str | None = None
    origin: str | None = None
    """The command id found on the object, when this change is the echo of a command of the hub."""
    clears: tuple[str, ...] = ()
    """Fields that are now empty in the outside system and have no value in `data`: their previous values are cleared."""


@dataclass(frozen=True)
class Unmapped:
    """A change that cannot be mapped: it is parked with its bytes, and later ones of the same subject wait behind it."""

    raw: bytes
    code: str
    seen: Mapping[str, Any]
    subject: str | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Page:
    """The result of one poll. The cursor is stored in the same transaction as the facts; `more` requests the next page at once."""

    facts: tuple[Fact | Unmapped, ...]
    cursor: str
    more: bool = False
    ahead: float | None = None
    """Seconds by which the newest time in the source is ahead of our clock, 0 if it is not; None if this page does not show it.
    A cursor never advances to such a time: changes made before the clocks agree again would be skipped."""


@dataclass(frozen=True)
class Delivery:
    """A webhook request as received: header names in lower case, the body byte for byte.

    Only signed parts are authenticated; a third party may have set any other header.
    """

    headers: Mapping[str, str]
    body: bytes
    received: datetime


class Idempotency(enum.Enum):
    """How the target system prevents a command from being executed twice: idempotency class A, B or C."""

    KEY = "A"
    """The system accepts an idempotency key: a repeated key returns the first result."""
    LOOKUP = "B"
    """The system can be queried for an object that carries the command's id."""
    NONE = "C"
    """Neither: a command with an uncertain result is parked for a person."""


@dataclass(frozen=True)
class Effect:
    """The effect of a command in the target system. `id` is the new object's id there, None if none was created."""

    id: str | None
    response: Mapping[str, Any] = field(default_factory=dict)
    facts: tuple[Fact, ...] = ()
    """Facts that follow from the effect and that neither a webhook nor a poll will report. Recorded with the effect; people in
    them are named as in the command."""


@dataclass(frozen=True)
class RateLimits:
    """Limits on the calls to an instance."""

    per_second: float = 20.0
    at_once: int = 8
    timeout: float = 15.0
    """Seconds to wait for a response."""
    settle: float = 2.0
    """Seconds to wait, after a call with an uncertain result, before looking its effect up."""
    tries: int = 10
    """Unreadable responses to a command before it is parked for a person."""


@dataclass(frozen=True)
class Instance:
    """One connected system: its name in hub.yaml and its settings, with secrets filled in."""

    name: str
    use: str
    settings: Mapping[str, Any]
    place: Callable[[tuple[str | int, ...]], Place] = lambda path: Place("hub.yaml")
    """Gives the place of a setting in hub.yaml."""
    home: Path = Path()
    timezone: str = "UTC"


class WebhookSource(Protocol):
    """The capability of receiving webhooks."""

    def verify(self, delivery: Delivery) -> None:
        """Verify the signature over the raw bytes; raises RejectedError when it is invalid or too old."""

    def id_of(self, delivery: Delivery) -> str | None:
        """The sender's id of a verified delivery, if the signature covers one; else None: its content identifies it."""

    def read(self, delivery: Delivery) -> tuple[Fact | Unmapped, ...]:
        """Map a verified delivery to facts; empty when the mapping matches nothing. Raises RejectedError for no JSON."""


@runtime_checkable
class WebhookReplies(Protocol):
    """Optional for a webhook source: its own response to some deliveries, as for a platform that verifies the URL."""

    def reply(self, delivery: Delivery) -> bytes | None:
        """The JSON response to a verified delivery; None for the default response."""


class PollingSource(Protocol):
    """The capability of polling a system for changes."""

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams to poll, each with a cursor of its own."""

    @property
    def interval(self) -> float:
        """Seconds between polls when no further page is available."""

    def poll(self, stream: str, cursor: str | None) -> Page:
        """Read the changes after `cursor`, oldest first. None: from now on or from the start, as the README documents.

        May return a change more than once. Raises RetryableError while the system is away, FatalError for refused credentials.
        """


class CommandSink(Protocol):
    """The capability of executing commands."""

    @property
    def command_types(self) -> frozenset[str]:
        """The types of command it executes."""

    @property
    def limits(self) -> RateLimits:
        """Limits on the calls to the instance."""

    def idempotency(self, type_: str) -> Idempotency:
        """The idempotency class of a type of command."""

    def send(self, command: Command) -> Effect:
        """Execute the command with exactly one request that changes anything; it carries the command's id.

        Promises in the arguments are resolved and persons are accounts. Raises UncertainError when it may have been executed,
        RetryableError when it certainly was not, RejectedError when it never will be, FatalError for refused credentials.
        """

    def find(self, command: Command) -> Effect | None:
        """Look up whether the command was executed: its effect, or None for certainly not. Only called for class LOOKUP."""


@dataclass(frozen=True)
class Connector:
    """A connector's capabilities; None for those it does not have."""

    instance: Instance
    receives: WebhookSource | None = None
    polls: PollingSource | None = None
    sends: CommandSink | None = None
    knows_persons: bool = False
    """Whether its system identifies people as the hub does: persons in commands are then not resolved to accounts."""
    check: Callable[[], str] | None = None
    """Verify the credentials without changing anything: a line of text for people. Raises as `send` does."""
    quota: Quota = field(default_factory=Quota)
    """Limit on its parked deliveries."""
    remarks: tuple[HubError, ...] = ()
    """Settings that are probably mistakes, as warnings of `hub validate`."""
    reread: Callable[[bytes], tuple[Fact | Unmapped, ...]] | None = None
    """Map `Unmapped.raw` of a poll again, without a call to the system; None if not supported."""


Connect = Callable[[Instance], Connector]
"""The function `connect` in each folder's connector.py. Raises FatalError with a place for wrong settings."""
