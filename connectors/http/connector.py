"""Joins signatures, mapping and requests behind the hub's interface."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from connectors.http import commands, mapping
from connectors.http.answers import Reading, Said, field_that_says_no
from connectors.http.commands import LookUp
from connectors.http.settings import HttpSettings, Receive, certificates, settings_of
from connectors.http.signatures import Verifier
from hub.config.settings import Quota
from hub.config.strict_json import Document, read_json
from hub.errors import FatalError, HubError, RejectedError, RetryableError, UnreadableError
from hub.expressions.engine import Engine
from hub.expressions.expression import Scope
from hub.expressions.templates import Template
from hub.kit.api_client import ApiRequest, ApiResponse, Outbound
from hub.kit.connector import Connector, Delivery, Effect, Fact, Idempotency, Instance, RateLimits, Unmapped
from schemas.envelope import Command

KEPT = 16 * 1024
"""Bytes of an answer that are kept with the effect; a longer one is left out."""


class HttpReceiver:
    """Takes signed pushes."""

    def __init__(self, receive: Receive, settings: HttpSettings, instance: Instance, engine: Engine) -> None:
        self._verifier = Verifier(receive.verify, instance)
        self._engine, self._instance, self._zone = engine, instance.name, settings.zone(instance)
        self._entries = [
            mapping.compiled(event, _place_of(instance, "receive", "events", at), engine)
            for at, event in enumerate(receive.events)
        ]
        self._answer = mapping.answer(receive.answer, instance, engine) if receive.answer else None
        ignored = receive.ignore and engine.condition(
            receive.ignore, mapping.NAMES, instance.place(("receive", "ignore"))
        )
        self._passed_over = [each for each in (ignored, self._answer and self._answer.condition) if each]

    def verify(self, delivery: Delivery) -> None:
        """As `Receives.verify`."""
        self._verifier.verify(delivery)

    def id_of(self, delivery: Delivery) -> str | None:
        """As `Receives.id_of`."""
        return self._verifier.id_of(delivery)

    def remarks(self) -> Iterator[HubError]:
        """Expressions that believe a header which the scheme does not sign: anybody on the way could have changed it."""
        for expression in [each for entry in self._entries for each in entry.expressions]:
            for path in expression.reads:
                if path.root == "headers" and (not path.parts or path.parts[0] not in self._verifier.signed):
                    seen = {"instance": self._instance, "header": str(path)}
                    yield FatalError("HUB-W4215", place=expression.at(path.at), **seen)

    def reply(self, delivery: Delivery) -> bytes | None:
        """As `Replies.reply`; None also where the answer cannot be made of this push."""
        if self._answer is None:
            return None
        try:
            scope = mapping.scope_of(delivery, read_json(delivery.body), self._engine)
            if not self._answer.condition.test(scope):
                return None
            return json.dumps(self._answer.body.render(scope), ensure_ascii=False).encode()
        except RejectedError:
            return None

    def read(self, delivery: Delivery) -> tuple[Fact | Unmapped, ...]:
        """As `Receives.read`."""
        return mapping.facts(
            delivery, self._entries, self._engine, self._instance, self._zone, passed_over=self._passed_over
        )


class HttpTarget:
    """Carries out commands, each by one request."""

    def __init__(self, settings: HttpSettings, instance: Instance, engine: Engine, outbound: Outbound) -> None:
        self._engine, self._instance, self._outbound = engine, instance.name, outbound
        self._limits = settings.limits.limits
        self._credentials = commands.credentials(settings.auth)
        self._calls = {type_: commands.call(type_, send, instance, engine) for type_, send in settings.send.items()}

    @property
    def takes(self) -> frozenset[str]:
        """The types that the settings name."""
        return frozenset(self._calls)

    @property
    def limits(self) -> RateLimits:
        """As the settings say."""
        return self._limits

    @property
    def hosts(self) -> tuple[str, ...]:
        """Everyone that is called."""
        return tuple(sorted({call.address.host for call in self._calls.values()}))

    def once(self, type_: str) -> Idempotency:
        """As the settings say."""
        return self._calls[type_].once

    def send(self, command: Command) -> Effect:
        """As `Sends.send`. An answer that cannot be read is no proof that nothing was done: UnreadableError."""
        call = self._calls[command.type]
        scope = self._engine.scope({"command": commands.told(command)})
        request = call.request(command, scope, self._credentials)
        answer = self._outbound.call(request, repeatable=call.once is Idempotency.KEY)
        response = self._response(answer, request)
        said = self._judged(call.reading, command, answer, request, response)
        if said is Said.NOTHING and call.id is None and field_that_says_no(response.value) is not None:
            raise self._unclear(call.reading, answer)
        id_ = self._id(call.id, command, response) if call.id else None
        return _effect(id_, answer, response)

    def find(self, command: Command) -> Effect | None:
        """As `Sends.find`. An answer that says neither "here" nor "absent" is UnreadableError."""
        look_up = self._calls[command.type].look_up
        if look_up is None:
            raise LookupError(f"{command.type} at {self._instance} cannot be looked up")
        scope = self._engine.scope({"command": commands.told(command)})
        request = ApiRequest("GET", look_up.address.render(scope), self._credentials)
        answer = self._outbound.call(request)
        response = self._response(answer, request)
        said = self._judged(look_up.reading, command, answer, request, response)
        no = field_that_says_no(response.value) if said is Said.NOTHING else None
        if no is not None and no not in look_up.absent.expression.text:  # it may be their word for "absent"
            raise self._unclear(look_up.reading, answer)
        return self._found(look_up, command, answer, response)

    def _judged(
        self, reading: Reading, command: Command, answer: ApiResponse, request: ApiRequest, response: Document
    ) -> Said:
        """What the answer says by the settings; raises for all that is not done."""
        said = reading.said(self._answered(command, response))
        reason = f"HTTP {answer.status}: {self._outbound.excerpt(answer.body)}"
        seen: dict[str, Any] = {"instance": self._instance, "url": request.shown}
        if said is Said.CREDENTIALS:
            raise FatalError("HUB-E4003", login=reason, **seen)
        if said is Said.RETRY:
            raise RetryableError("HUB-E4005", reason=reason, **seen)
        if said is Said.REFUSED:
            raise RejectedError("HUB-E4006", reason=reason, **seen)
        if said is Said.UNCLEAR:
            raise self._unclear(reading, answer)
        return said

    def _unclear(self, reading: Reading, answer: ApiResponse) -> UnreadableError:
        excerpt = self._outbound.excerpt(answer.body)
        return UnreadableError("HUB-E4213", instance=self._instance, setting=reading.setting, answer=excerpt)

    def _found(self, look_up: LookUp, command: Command, answer: ApiResponse, response: Document) -> Effect | None:
        scope = self._answered(command, response)
        try:
            if look_up.absent.test(scope):
                return None
            return _effect(_text(look_up.id, scope), answer, response)
        except RejectedError as error:
            raise UnreadableError(
                "HUB-E4206",
                place=error.place,
                instance=self._instance,
                command=command.id,
                answer=self._outbound.excerpt(answer.body),
            ) from error

    def _id(self, template: Template, command: Command, response: Document) -> str:
        try:
            return _text(template, self._answered(command, response))
        except RejectedError as error:
            raise UnreadableError(
                "HUB-E4205",
                place=error.place,
                instance=self._instance,
                setting=f"send.{command.type}.id",
                reason=self._outbound.masked(json.dumps(response.value, ensure_ascii=False))[:300],
            ) from error

    def _answered(self, command: Command, response: Document) -> Scope:
        return self._engine.scope({"command": commands.told(command), "response": response})

    def _response(self, answer: ApiResponse, request: ApiRequest) -> Document:
        if not answer.body.strip():
            return Document({})
        try:
            return read_json(answer.body)
        except RejectedError as error:
            excerpt = self._outbound.excerpt(answer.body)
            raise UnreadableError("HUB-E4203", instance=self._instance, url=request.shown, answer=excerpt) from error


def connect(instance: Instance) -> Connector:
    """Make the connector of one instance; opens no connection. Raises FatalError with a place for wrong settings."""
    settings = settings_of(instance)
    engine = Engine()
    outbound = Outbound(
        instance.name,
        settings.limits.limits,
        commands.secrets(settings, instance),
        certificates(settings, instance),
        commands.login(settings.auth),
    )
    target = HttpTarget(settings, instance, engine, outbound) if settings.send else None
    receiver = HttpReceiver(settings.receive, settings, instance, engine) if settings.receive else None
    return Connector(
        instance,
        receives=receiver,
        quota=settings.receive.quota.quota if settings.receive else Quota(),
        sends=target,
        check=_check(settings, instance, engine, outbound, target),
        remarks=(*_blind(settings, instance), *(receiver.remarks() if receiver is not None else ())),
    )


def _blind(settings: HttpSettings, instance: Instance) -> Iterator[HubError]:
    """Requests whose every 2xx is taken for done: a system that says no with 200 would not be heard."""
    for type_, send in settings.send.items():
        if send.id is None and send.done is None:
            place = instance.place(("send", type_))
            yield FatalError("HUB-W4214", place=place, instance=instance.name, setting=f"send.{type_}")


def _check(
    settings: HttpSettings, instance: Instance, engine: Engine, outbound: Outbound, target: HttpTarget | None
) -> Callable[[], str] | None:
    """Ask what the settings name to ask; without it, only see that every host takes connections."""
    if settings.check:
        url = commands.address(settings.check.get, ("check", "get"), instance, engine, names=())
        request = ApiRequest("GET", url.render(engine.scope({})), commands.credentials(settings.auth))
        return lambda: f"{request.shown} · HTTP {outbound.call(request).status}"
    if target is None:
        return None
    hosts, seconds = target.hosts, target.limits.timeout
    return lambda: " · ".join(_reached(host, seconds, instance) for host in hosts)


def _reached(host: str, seconds: float, instance: Instance) -> str:
    parts = urlsplit(host)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=seconds).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise RetryableError("HUB-E4001", instance=instance.name, url=shown, reason=reason) from error
    return shown


def _place_of(instance: Instance, *above: str | int) -> mapping.PlaceOf:
    return lambda path: instance.place((*above, *path))


def _text(template: Template, scope: Scope) -> str:
    """An id over there: text or a whole number. Raises RejectedError for anything else, also for nothing."""
    value = template.render(scope)
    if (isinstance(value, str) and value) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise RejectedError("HUB-E4222", field="id", expected='"…"', got=str(value)[:60])


def _effect(id_: str | None, answer: ApiResponse, response: Document) -> Effect:
    keep = isinstance(response.value, dict) and len(answer.body) <= KEPT
    return Effect(id_, response.value if keep else {})
