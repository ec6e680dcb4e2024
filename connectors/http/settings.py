"""An `http` instance in hub.yaml: the model of its settings, and what no model can say."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BeforeValidator, Field, PlainValidator, SecretStr
from pydantic_core import PydanticCustomError

from hub.config.expecting import form
from hub.config.settings import Quota
from hub.errors import FatalError
from hub.kit.connector import Instance
from hub.kit.settings import LimitSettings, Settings, closest, dotted, read, wrong
from schemas.envelope import CommandType, EventType

METHODS = ("post", "put", "patch", "get")
SECRETS = ("receive.verify.secret", "auth")


def _as_it_is(value: object) -> str:
    # Pydantic would make a plain str of it, and lose what the reader of hub.yaml knows of it: which part is a secret.
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "must be text")
    return value


def _zone(value: object) -> str:
    if not isinstance(value, str) or value not in available_timezones():
        near = closest(str(value), available_timezones()) or "Asia/Shanghai"
        raise PydanticCustomError("timezone", "no time zone", {"expected": near})
    return value


Text = Annotated[str, PlainValidator(_as_it_is)]
"""Text with `${…}` in it, perhaps."""
Secrets = Annotated[
    tuple[SecretStr, ...],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    Field(min_length=1),
]
"""One secret, or several while a new one takes over."""


class Verify(Settings):
    """How a push proves who sent it."""

    scheme: Literal["standard-webhooks", "x-hub-signature-256"]
    secret: Secrets


class EventMap(Settings):
    """One kind of fact that a push may tell. Without `version` it is the delivery's id, without `time` its arrival."""

    condition: Text = Field(default="true", alias="if")
    type: EventType
    subject: Text
    version: Text | int | None = None
    time: Text | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    actor: Text | None = None
    belongs_to: Text | None = None
    origin: Text | None = None
    clears: tuple[Annotated[str, form(r"^\S+$", "字段名", "the name of a field", "amount")], ...] = ()
    """Fields of `data` that are empty over there when they are null or missing here."""


class QuotaSettings(Settings):
    """What of its pushes may be parked at once, with the defaults of `hub.config.settings`."""

    entries: int = Field(default=Quota.entries, ge=1, le=10_000_000)
    bytes: int = Field(default=Quota.bytes, ge=1024)

    @property
    def quota(self) -> Quota:
        """As intake wants it."""
        return Quota(self.entries, self.bytes)


class Reply(Settings):
    """The answer to a push by which a platform tries the address: JSON with expressions in it."""

    condition: Text = Field(alias="if")
    body: Any = Field(alias="json")


class Receive(Settings):
    """What is pushed to the hub. `timezone` is that of times that name none; else the hub's own.

    A push on which `ignore` holds, or that is answered by `answer`, tells nothing.
    """

    verify: Verify
    ignore: Text | None = None
    answer: Reply | None = None
    events: Annotated[tuple[EventMap, ...], Field(min_length=1)]
    timezone: Annotated[str, PlainValidator(_zone)] | None = None
    quota: QuotaSettings = QuotaSettings()


class Key(Settings):
    """The header by which the system knows a command again."""

    header: Annotated[str, form(r"^[A-Za-z0-9-]+$", "HTTP 头的名称", "the name of an HTTP header", "Idempotency-Key")]


class Answers(Settings):
    """What an answer with a 2xx says, each a condition on `response`; for systems that say no in the body.

    Where `done` holds it is done. Else the first of `credentials` (we are refused), `retry` (surely not done, later perhaps)
    and `refused` (never) that holds. Else it is refused, or, where `refused` is written, nobody knows.
    """

    done: Text | None = None
    credentials: Text | None = None
    retry: Text | None = None
    refused: Text | None = None


class Find(Answers):
    """How the system is asked whether a command was done."""

    get: Text
    id: Text
    absent: Text


class Send(Answers):
    """The request that carries out one type of command."""

    post: Text | None = None
    put: Text | None = None
    patch: Text | None = None
    get: Text | None = None
    headers: dict[str, Text] = Field(default_factory=dict)
    body: Any = Field(default=None, alias="json")
    once: Key | None = None
    find: Find | None = None
    id: Text | None = None

    @property
    def method(self) -> str:
        """The one that is named."""
        return next(name for name in METHODS if getattr(self, name) is not None)

    @property
    def url(self) -> str:
        """Where it goes."""
        found: str = getattr(self, self.method)
        return found


class Basic(Settings):
    """A user's name and password."""

    user: str
    password: SecretStr


class Auth(Settings):
    """How we show who we are; exactly one of these."""

    bearer: SecretStr | None = None
    basic: Basic | None = None
    header: dict[str, SecretStr] | None = None


class CheckRequest(Settings):
    """What `hub connectors check` asks."""

    get: Text


class HttpSettings(Settings):
    """One instance."""

    receive: Receive | None = None
    send: dict[CommandType, Send] = Field(default_factory=dict)
    limits: LimitSettings = LimitSettings()
    auth: Auth | None = None
    check: CheckRequest | None = None
    ca: str | None = None
    """A file with the certificates of a private authority, relative to the home."""

    def zone(self, instance: Instance) -> ZoneInfo:
        """The time zone of pushed times that name none."""
        return ZoneInfo((self.receive and self.receive.timezone) or instance.timezone)


def settings_of(instance: Instance) -> HttpSettings:
    """Read and check; raises FatalError with its place for the first mistake."""
    receive = instance.settings.get("receive")
    if isinstance(receive, dict) and not receive.get("verify"):
        raise FatalError("HUB-E4013", place=instance.place(("receive",)), instance=instance.name)
    settings = read(HttpSettings, instance, SECRETS)
    if settings.receive is None and not settings.send:
        raise _exactly_one(instance, (), ("receive", "send"))
    for at, event in enumerate(settings.receive.events if settings.receive else ()):
        if event.type.startswith("hub."):  # the hub alone says what it did itself
            raise wrong(instance, ("receive", "events", at, "type"), "crm.… | erp.… | work.…", event.type)
    for type_, send in settings.send.items():
        if len([name for name in METHODS if getattr(send, name) is not None]) != 1:
            raise _exactly_one(instance, ("send", type_), METHODS)
        if send.once and send.find:
            raise _exactly_one(instance, ("send", type_), ("once", "find"))
    auth = settings.auth
    if auth and len([each for each in (auth.bearer, auth.basic, auth.header) if each]) != 1:
        raise _exactly_one(instance, ("auth",), ("bearer", "basic", "header"))
    return settings


def certificates(settings: HttpSettings, instance: Instance) -> str | None:
    """The file of `ca`, None for the authorities that everybody trusts; raises FatalError when it is not there."""
    if settings.ca is None:
        return None
    file = instance.home / settings.ca
    if not file.is_file():
        raise wrong(instance, ("ca",), "certs/ca.pem", settings.ca)
    return str(file)


def _exactly_one(instance: Instance, path: tuple[str | int, ...], choices: tuple[str, ...]) -> FatalError:
    return FatalError(
        "HUB-E4211",
        place=instance.place(path),
        instance=instance.name,
        setting=dotted(path) or instance.name,
        choices=" | ".join(choices),
    )
