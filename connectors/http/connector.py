"""The `http` connector: joins signatures, mapping and requests behind `hub.kit.connector`."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from connectors.http import commands, mapping
from connectors.http.answers import ResponseConditions, ResponseOutcome, error_field
from connectors.http.commands import LookUp
from connectors.http.settings import HttpSettings, Receive, certificates, settings_of
from connectors.http.signatures import Verifier
from hub.config.settings import Quota
from hub.config.strict_json import Document, read_json
from hub.errors import FatalError, HubError, RejectedError, RetryableError, UnreadableError
from hub.expressions.engine import Engine
from hub.expressions.expression import Scope
from hub.expressions.templates import Template
from hub.kit.api_client import ApiClient, ApiRequest, ApiResponse
from hub.kit.connector import Connector, Delivery, Effect, Fact, Idempotency, Instance, RateLimits, Unmapped
from schemas.envelope import Command

MAX_STORED_RESPONSE_BYTES = 16 * 1024
"""The effect stores an answer of at most this size; a longer one is left out."""


class HttpReceiver:
    """Receives signed pushes."""

    def __init__(self, receive: Receive, settings: HttpSettings, instance: Instance, engine: Engine) -> None:
        self._verifier = Verifier(receive.verify, instance)
        self._engine, self._instance, self._zone = engine, instance.name, settings.zone(instance)
        self._entries = [
            mapping.compile_event(event, _place_below(instance, "receive", "events", at), engine)
            for at, event in enumerate(receive.events)
        ]
        self._answer = mapping.compile_reply(receive.answer, instance, engine) if receive.answer else None
        ignored = receive.ignore and engine.condition(
            receive.ignore, mapping.EXPRESSION_NAMES, instance.place(("receive", "ignore"))
        )
        self._ignored = [each for each in (ignored, self._answer and self._answer.condition) if each]

    def verify(self, delivery: Delivery) -> None:
        """As `WebhookSource.verify`."""
        self._verifier.verify(delivery)

    def id_of(self, delivery: Delivery) -> str | None:
        """As `WebhookSource.id_of`."""
        return self._verifier.id_of(delivery)

    def remarks(self) -> Iterator[HubError]:
        """A warning for each expression that reads a header which the scheme does not sign: any proxy could have changed it."""
        for expression in [each for entry in self._entries for each in entry.expressions]:
            for path in expression.reads:
                if path.root == "headers" and (not path.parts or path.parts[0] not in self._verifier.signed):
                    seen = {"instance": self._instance, "header": str(path)}
                    yield FatalError("HUB-W4215", place=expression.at(path.at), **seen)

    def reply(self, delivery: Delivery) -> bytes | None:
        """As `WebhookReplies.reply`; None also where the answer's template fails on this push."""
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
        """As `WebhookSource.read`."""
        return mapping.facts(delivery, self._entries, self._engine, self._instance, self._zone, ignored=self._ignored)


class HttpTarget:
    """Carries out commands, each by one request."""

    def __init__(self, settings: HttpSettings, instance: Instance, engine: Engine, outbound: ApiClient) -> None:
        self._engine, self._instance, self._outbound = engine, instance.name, outbound
        self._limits = settings.limits.limits
        self._credentials = commands.credentials(settings.auth)
        self._calls = {
            type_: commands.compile_request(type_, send, instance, engine) for type_, send in settings.send.items()
        }

    @property
    def command_types(self) -> frozenset[str]:
        """The types that the settings configure."""
        return frozenset(self._calls)

    @property
    def limits(self) -> RateLimits:
        """The limits of the settings."""
        return self._limits

    @property
    def hosts(self) -> tuple[str, ...]:
        """Scheme, host and port of every host that commands call."""
        return tuple(sorted({call.url.host for call in self._calls.values()}))

    def idempotency(self, type_: str) -> Idempotency:
        """The class that the settings give this type."""
        return self._calls[type_].idempotency

    def send(self, command: Command) -> Effect:
        """As `CommandSink.send`. An unreadable answer does not prove that nothing was done: UnreadableError."""
        call = self._calls[command.type]
        scope = self._engine.scope({"command": commands.command_values(command)})
        request = call.request(command, scope, self._credentials)
        answer = self._outbound.call(request, repeatable=call.idempotency is Idempotency.KEY)
        response = self._response(answer, request)
        outcome = self._outcome(call.conditions, command, answer, request, response)
        if outcome is ResponseOutcome.NOTHING and call.id is None and error_field(response.value) is not None:
            raise self._unclear(call.conditions, answer)
        id_ = self._id(call.id, command, response) if call.id else None
        return _effect(id_, answer, response)

    def find(self, command: Command) -> Effect | None:
        """As `CommandSink.find`. An answer that means neither "found" nor "absent" is UnreadableError."""
        look_up = self._calls[command.type].look_up
        if look_up is None:
            raise LookupError(f"{command.type} at {self._instance} cannot be looked up")
        scope = self._engine.scope({"command": commands.command_values(command)})
        request = ApiRequest("GET", look_up.url.render(scope), self._credentials)
        answer = self._outbound.call(request)
        response = self._response(answer, request)
        outcome = self._outcome(look_up.conditions, command, answer, request, response)
        error = error_field(response.value) if outcome is ResponseOutcome.NOTHING else None
        if error is not None and error not in look_up.absent.expression.text:  # the field may mean "absent"
            raise self._unclear(look_up.conditions, answer)
        return self._found(look_up, command, answer, response)

    def _outcome(
        self,
        conditions: ResponseConditions,
        command: Command,
        answer: ApiResponse,
        request: ApiRequest,
        response: Document,
    ) -> ResponseOutcome:
        """The outcome of an answer by the settings' conditions; raises for everything that is not done."""
        outcome = conditions.outcome(self._answer_scope(command, response))
        reason = f"HTTP {answer.status}: {self._outbound.excerpt(answer.body)}"
        seen: dict[str, Any] = {"instance": self._instance, "url": request.shown}
        if outcome is ResponseOutcome.CREDENTIALS:
            raise FatalError("HUB-E4003", login=reason, **seen)
        if outcome is ResponseOutcome.RETRY:
            raise RetryableError("HUB-E4005", reason=reason, **seen)
        if outcome is ResponseOutcome.REFUSED:
            raise RejectedError("HUB-E4006", reason=reason, **seen)
        if outcome is ResponseOutcome.UNCLEAR:
            raise self._unclear(conditions, answer)
        return outcome

    def _unclear(self, conditions: ResponseConditions, answer: ApiResponse) -> UnreadableError:
        excerpt = self._outbound.excerpt(answer.body)
        return UnreadableError("HUB-E4213", instance=self._instance, setting=conditions.setting, answer=excerpt)

    def _found(self, look_up: LookUp, command: Command, answer: ApiResponse, response: Document) -> Effect | None:
        scope = self._answer_scope(command, response)
        try:
            if look_up.absent.test(scope):
                return None
            return _effect(_id_text(look_up.id, scope), answer, response)
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
            return _id_text(template, self._answer_scope(command, response))
        except RejectedError as error:
            raise UnreadableError(
                "HUB-E4205",
                place=error.place,
                instance=self._instance,
                setting=f"send.{command.type}.id",
                reason=self._outbound.masked(json.dumps(response.value, ensure_ascii=False))[:300],
            ) from error

    def _answer_scope(self, command: Command, response: Document) -> Scope:
        return self._engine.scope({"command": commands.command_values(command), "response": response})

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
    outbound = ApiClient(
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
        remarks=(*_unchecked_requests(settings, instance), *(receiver.remarks() if receiver is not None else ())),
    )


def _unchecked_requests(settings: HttpSettings, instance: Instance) -> Iterator[HubError]:
    """A warning for each request that takes every 2xx for done: it would miss a system that refuses with a 200."""
    for type_, send in settings.send.items():
        if send.id is None and send.done is None:
            place = instance.place(("send", type_))
            yield FatalError("HUB-W4214", place=place, instance=instance.name, setting=f"send.{type_}")


def _check(
    settings: HttpSettings, instance: Instance, engine: Engine, outbound: ApiClient, target: HttpTarget | None
) -> Callable[[], str] | None:
    """Send the request of the setting `check`; without it, only test that every host accepts connections."""
    if settings.check:
        url = commands.compile_url(settings.check.get, ("check", "get"), instance, engine, names=())
        request = ApiRequest("GET", url.render(engine.scope({})), commands.credentials(settings.auth))
        return lambda: f"{request.shown} · HTTP {outbound.call(request).status}"
    if target is None:
        return None
    hosts, seconds = target.hosts, target.limits.timeout
    return lambda: " · ".join(_probe(host, seconds, instance) for host in hosts)


def _probe(host: str, seconds: float, instance: Instance) -> str:
    parts = urlsplit(host)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=seconds).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise RetryableError("HUB-E4001", instance=instance.name, url=shown, reason=reason) from error
    return shown


def _place_below(instance: Instance, *above: str | int) -> mapping.PlaceOf:
    return lambda path: instance.place((*above, *path))


def _id_text(template: Template, scope: Scope) -> str:
    """An id in the other system: text or a whole number. Raises RejectedError for anything else, also for empty values."""
    value = template.render(scope)
    if (isinstance(value, str) and value) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise RejectedError("HUB-E4222", field="id", expected='"…"', got=str(value)[:60])


def _effect(id_: str | None, answer: ApiResponse, response: Document) -> Effect:
    keep = isinstance(response.value, dict) and len(answer.body) <= MAX_STORED_RESPONSE_BYTES
    return Effect(id_, response.value if keep else {})
