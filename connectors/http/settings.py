"""The settings of an `http` instance in hub.yaml: their model, and the checks that a model cannot express."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BeforeValidator, Field, PlainValidator, SecretStr
from pydantic_core import PydanticCustomError

from hub.config.expecting import text_form
from hub.config.settings import Quota
from hub.errors import FatalError
from hub.kit.connector import Instance
from hub.kit.settings import LimitSettings, Settings, closest, dotted, read, wrong
from schemas.envelope import CommandType, EventType

METHODS = ("post", "put", "patch", "get")
SECRETS = ("receive.verify.secret", "auth")


def _as_it_is(value: object) -> str:
    # Pydantic would convert it to a plain str, and lose the marks of the hub.yaml reader: which part is a secret.
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "must be text")
    return value


def _zone(value: object) -> str:
    if not isinstance(value, str) or value not in available_timezones():
        near = closest(str(value), available_timezones()) or "Asia/Shanghai"
        raise PydanticCustomError("timezone", "no time zone", {"expected": near})
    return value


Text = Annotated[str, PlainValidator(_as_it_is)]
"""Text that may hold `${…}`."""
Secrets = Annotated[
    tuple[SecretStr, ...],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    Field(min_length=1),
]
"""One secret, or several during a rotation."""


class Verify(Settings):
    """How a push proves who sent it."""

    scheme: Literal["standard-webhooks", "x-hub-signature-256"]
    secret: Secrets


class EventMap(Settings):
    """One kind of fact in a push. Without `version` it takes the delivery's id, without `time` the delivery's arrival."""

    condition: Text = Field(default="true", alias="if")
    type: EventType
    subject: Text
    version: Text | int | None = None
    time: Text | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    actor: Text | None = None
    belongs_to: Text | None = None
    origin: Text | None = None
    clears: tuple[Annotated[str, text_form(r"^\S+$", "字段名", "the name of a field", "amount")], ...] = ()
    """Fields of `data` that are empty in the source when they are null or missing in the push."""


class QuotaSettings(Settings):
    """How many of its pushes may be parked at once, with the defaults of `hub.config.settings`."""

    entries: int = Field(default=Quota.entries, ge=1, le=10_000_000)
    bytes: int = Field(default=Quota.bytes, ge=1024)

    @property
    def quota(self) -> Quota:
        """The quota in intake's type."""
        return Quota(self.entries, self.bytes)


class Reply(Settings):
    """The answer to a push by which a platform tests the URL: JSON with expressions in it."""

    condition: Text = Field(alias="if")
    body: Any = Field(alias="json")


class Receive(Settings):
    """The pushes to the hub. `timezone` applies to times without a zone; by default it is the hub's own.

    A push on which `ignore` holds, or that `answer` answers, gives no facts.
    """

    verify: Verify
    ignore: Text | None = None
    answer: Reply | None = None
    events: Annotated[tuple[EventMap, ...], Field(min_length=1)]
    timezone: Annotated[str, PlainValidator(_zone)] | None = None
    quota: QuotaSettings = QuotaSettings()


class Key(Settings):
    """The header by which the system recognizes a repeated command."""

    header: Annotated[
        str, text_form(r"^[A-Za-z0-9-]+$", "HTTP 头的名称", "the name of an HTTP header", "Idempotency-Key")
    ]


class Answers(Settings):
    """The outcome of an answer with a 2xx, each a condition on `response`; for systems that report errors in the body.

    Where `done` holds it is done. Else the first of `credentials` (they are refused), `retry` (certainly not done, try later)
    and `refused` (permanently) that holds. Else it is refused, or, where `refused` is set, the outcome is unknown.
    """

    done: Text | None = None
    credentials: Text | None = None
    retry: Text | None = None
    refused: Text | None = None


class Find(Answers):
    """The request that looks up whether a command was done."""

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
        """The HTTP method that is set."""
        return next(name for name in METHODS if getattr(self, name) is not None)

    @property
    def url(self) -> str:
        """The URL template of that method."""
        url: str = getattr(self, self.method)
        return url


class Basic(Settings):
    """A user's name and password."""

    user: str
    password: SecretStr


class Auth(Settings):
    """How the hub authenticates; exactly one of these."""

    bearer: SecretStr | None = None
    basic: Basic | None = None
    header: dict[str, SecretStr] | None = None


class CheckRequest(Settings):
    """The request of `hub connectors check`."""

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
    """Read and validate the settings; raises FatalError with its place for the first mistake."""
    receive = instance.settings.get("receive")
    if isinstance(receive, dict) and not receive.get("verify"):
        raise FatalError("HUB-E4013", place=instance.place(("receive",)), instance=instance.name)
    settings = read(HttpSettings, instance, SECRETS)
    if settings.receive is None and not settings.send:
        raise _exactly_one(instance, (), ("receive", "send"))
    for at, event in enumerate(settings.receive.events if settings.receive else ()):
        if event.type.startswith("hub."):  # only the hub itself emits its own events
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
    """The file of `ca`, None for the public authorities; raises FatalError when the file does not exist."""
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
