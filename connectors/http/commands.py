"""The requests of an `http` instance: compiles the settings, and turns a command into a request."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from connectors.http.answers import ResponseConditions, compile_conditions
from connectors.http.settings import Auth, Find, HttpSettings, Send
from hub.config.strict_json import Json
from hub.config.yaml_places import Filled
from hub.errors import FatalError, Place, RejectedError
from hub.expressions.engine import Engine
from hub.expressions.expression import Condition, Expression, Scope, kind
from hub.expressions.templates import Joined, Template
from hub.kit.api_client import ApiRequest
from hub.kit.connector import Idempotency, Instance
from hub.kit.settings import dotted, short
from hub.runtime.logs import login_secrets
from schemas.envelope import Command
from schemas.registry import COMMANDS

Path = tuple[str | int, ...]
PlaceOf = Callable[[Path], Place]
_HOST = re.compile(r"https?://[^/?#\s\\]+", re.IGNORECASE)


@dataclass(frozen=True)
class UrlTemplate:
    """A URL with expressions in it. Their values are percent-encoded, the text around them is not; the host is fixed."""

    pieces: tuple[str | Expression, ...]

    def render(self, scope: Scope) -> str:
        """Render the URL; raises RejectedError for a value that would leave the path: empty, `.` or `..`."""
        return "".join(piece if isinstance(piece, str) else _encoded(piece, scope) for piece in self.pieces)

    @property
    def host(self) -> str:
        """Scheme, host and port."""
        return _HOST.match(str(self.pieces[0])).group()  # type: ignore[union-attr]  # `compile_url` has checked it


@dataclass(frozen=True)
class LookUp:
    """The compiled request that looks up whether a command was done."""

    url: UrlTemplate
    id: Template
    absent: Condition
    conditions: ResponseConditions


@dataclass(frozen=True)
class CompiledRequest:
    """The request that carries out one type of command, compiled."""

    type: str
    method: str
    url: UrlTemplate
    headers: Mapping[str, Template]
    body: Template | None
    key_header: str | None
    look_up: LookUp | None
    id: Template | None
    conditions: ResponseConditions

    @property
    def idempotency(self) -> Idempotency:
        """The idempotency class that the settings imply."""
        return Idempotency.KEY if self.key_header else Idempotency.LOOKUP if self.look_up else Idempotency.NONE

    def request(self, command: Command, scope: Scope, credentials: Mapping[str, str]) -> ApiRequest:
        """Render the request of a command; raises RejectedError as the expressions do."""
        headers = {**credentials, **{name: _header(each, scope) for name, each in self.headers.items()}}
        if self.key_header:
            headers[self.key_header] = command.id
        body = None
        if self.body is not None:
            headers = {"Content-Type": "application/json"} | headers
            body = json.dumps(self.body.render(scope), ensure_ascii=False).encode()
        return ApiRequest(self.method.upper(), self.url.render(scope), headers, body)


def compile_request(type_: str, send: Send, instance: Instance, engine: Engine) -> CompiledRequest:
    """Compile a `send`; raises FatalError with the exact place for an unusable expression or URL."""
    path: Path = ("send", type_)
    names = ("command",)

    def template(value: Any, *below: str) -> Template:
        return engine.template(value, names, lambda inner: instance.place((*path, *below, *inner)))

    headers = {name: template(value, "headers", name) for name, value in send.headers.items()}
    body = template(send.body, "json") if "body" in send.model_fields_set else None
    return CompiledRequest(
        type=type_,
        method=send.method,
        url=compile_url(send.url, (*path, send.method), instance, engine),
        headers=headers,
        body=body,
        key_header=send.once.header if send.once else None,
        look_up=_compile_look_up(send.find, (*path, "find"), instance, engine) if send.find else None,
        id=compile_response_template(send.id, (*path, "id"), instance, engine) if send.id is not None else None,
        conditions=compile_conditions(send, path, instance, engine),
    )


def compile_url(
    text: str, path: Path, instance: Instance, engine: Engine, names: tuple[str, ...] = ("command",)
) -> UrlTemplate:
    """Compile a URL; raises FatalError unless its scheme and host are written out: no value may choose whom we call."""
    root = engine.template(text, names, lambda inner: instance.place((*path, *inner))).root
    pieces = root.pieces if isinstance(root, Joined) else (root,)
    first = pieces[0] if isinstance(pieces[0], str) else ""
    host = _HOST.match(first)
    if host is None or (len(pieces) > 1 and host.end() == len(first)):
        shown = short(text.split("?")[0].rpartition("@")[2])
        raise FatalError(
            "HUB-E4210", place=instance.place(path), instance=instance.name, setting=dotted(path), got=shown
        )
    return UrlTemplate(tuple(pieces))


def compile_response_template(text: str, path: Path, instance: Instance, engine: Engine) -> Template:
    """Compile a template over the command and its answer."""
    return engine.template(text, ("command", "response"), lambda inner: instance.place((*path, *inner)))


def _compile_look_up(find: Find, path: Path, instance: Instance, engine: Engine) -> LookUp:
    return LookUp(
        url=compile_url(find.get, (*path, "get"), instance, engine),
        id=compile_response_template(find.id, (*path, "id"), instance, engine),
        absent=engine.condition(find.absent, ("command", "response"), instance.place((*path, "absent"))),
        conditions=compile_conditions(find, path, instance, engine),
    )


def command_values(command: Command) -> dict[str, Json]:
    """The value of `command` in expressions: its arguments, missing optional ones as null, and the envelope's public fields.

    The envelope's names win over arguments of the same name: `command.id` is always the mark.
    """
    spec = COMMANDS.get(command.type)
    optional = {
        name: field.default
        for name, field in (spec.model.model_fields if spec else {}).items()
        if not field.is_required()
    }
    envelope = {name: getattr(command, name) for name in ("id", "type", "case", "subject", "time")}
    return {**optional, **command.arguments, **envelope}


def credentials(auth: Auth | None) -> dict[str, str]:
    """The authentication headers."""
    if auth is None:
        return {}
    if auth.bearer:
        return {"Authorization": f"Bearer {auth.bearer.get_secret_value()}"}
    if auth.basic:
        pair = f"{auth.basic.user}:{auth.basic.password.get_secret_value()}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {name: value.get_secret_value() for name, value in (auth.header or {}).items()}


def login(auth: Auth | None) -> str:
    """The login that errors may show."""
    if auth is None:
        return "-"
    return auth.basic.user if auth.basic else " ".join(auth.header) if auth.header else "bearer"


def secrets(settings: HttpSettings, instance: Instance) -> set[str]:
    """The texts that must never be shown: credentials, and every value from the environment except URLs."""
    shown = credentials(settings.auth).values()
    words = {value.rpartition(" ")[2] for value in shown}
    if settings.auth and settings.auth.basic:
        words.add(settings.auth.basic.password.get_secret_value())
    texts = list(_texts(instance.settings))
    filled = {text[start:end] for text in texts if isinstance(text, Filled) for start, end, _ in text.spans}
    from_environment = {text for text in filled if not text.startswith(("http://", "https://"))}
    return words | from_environment | {secret for text in texts for secret in login_secrets(text)}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _encoded(piece: Expression, scope: Scope) -> str:
    value = piece.value(scope)
    plain = isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    if not plain or str(value) in ("", ".", ".."):
        raise RejectedError("HUB-E4212", place=piece.place, expression=piece.text, got=short(value))
    return quote(str(value), safe="")


def _header(template: Template, scope: Scope) -> str:
    value = template.render(scope)
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    expression = template.expressions[0]  # literal text is text
    raise RejectedError("HUB-E3125", place=expression.place, expression=expression.text, type=kind(value))
