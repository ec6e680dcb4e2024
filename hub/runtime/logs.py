"""What the hub's programs write about themselves: one JSON object a line on standard error, without secrets.

Says a line that comes again and again a few times, and then how often: a flood must not fill the disk with its log.

Secrets as they may come back: as they are, percent-encoded, in base64, and what stands before the `@` of an address.

A system that echoes what it got, or an error that quotes it, must not show one in another spelling.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO
from urllib.parse import quote, unquote, urlsplit

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

MASK = "***"
OURS = ("connectors", "hub", "projections")
"""Packages whose information is wanted; of others, only warnings are."""
_PRIVATE = re.compile(r"password|secret|token|authorization|signature|cookie|api_?key", re.IGNORECASE)


def configure(program: str, secrets: Collection[str] = (), level: int = logging.INFO) -> None:
    """Set up structlog and the standard library's logging for this process, once.

    No value of `secrets`, and no field that is named like one, leaves the process.
    """
    masked = Masked(secrets)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = LimitedHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _of(program),
                masked,
                structlog.processors.JSONRenderer(serializer=_json),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for package in OURS:
        logging.getLogger(package).setLevel(level)
    logging.captureWarnings(True)


class Masked:
    """A processor that hides secrets: by the field's name, and wherever one of the values stands in a text."""

    def __init__(self, secrets: Collection[str]) -> None:
        longest_first = sorted((secret for secret in secrets if len(secret) >= 4), key=len, reverse=True)
        self._found = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, _logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        return {key: MASK if _PRIVATE.search(key) else self._hidden(value) for key, value in event.items()}

    def _hidden(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._found.sub(MASK, value) if self._found else value
        if isinstance(value, dict):
            return {key: MASK if _PRIVATE.search(str(key)) else self._hidden(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._hidden(inner) for inner in value]
        return value if isinstance(value, int | float | bool | None) else self._hidden(str(value))


def _of(program: str) -> Any:
    def name(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        return {"program": program, **event}

    return name


def _json(event: EventDict, **_options: Any) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:  # a text from outside that is no UTF-8
        return json.dumps(event, default=str)


REPEATED = "log.repeated"


@dataclass(frozen=True)
class Rate:
    """So many alike in so many seconds are written."""

    lines: int = 100
    seconds: float = 60.0
    kinds: int = 1000
    """Kinds of lines that are told apart; all others are one kind."""


@dataclass
class _Kind:
    began: float
    written: int = 0
    withheld: int = 0


class LimitedHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream. Lines are alike when one logger says the same event, with the same code, at the same level."""

    def __init__(self, stream: TextIO, rate: Rate | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._rate, self._clock = rate or Rate(), clock
        self._kinds: dict[tuple[str, ...], _Kind] = {}
        self._looked = clock()

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, or count it."""
        event = _event(record)
        if event == REPEATED:
            super().emit(record)
            return
        now = self._clock()
        if now - self._looked >= self._rate.seconds:
            self._looked = now
            self.sum_up()
        key = self._key(record, event)
        kind = self._kinds.setdefault(key, _Kind(now))
        if now - kind.began >= self._rate.seconds:
            self._sum(key, kind)
            kind = self._kinds[key] = _Kind(now)
        if kind.written < self._rate.lines:
            kind.written += 1
            super().emit(record)
        else:
            kind.withheld += 1

    def sum_up(self) -> None:
        """Say of all that was withheld how often it came, and begin anew."""
        kinds, self._kinds = self._kinds, {}
        for key, kind in kinds.items():
            self._sum(key, kind)

    def close(self) -> None:
        """Say what is still to be said."""
        self.sum_up()
        super().close()

    def _key(self, record: logging.LogRecord, event: str) -> tuple[str, ...]:
        code = str(record.msg.get("code", "")) if isinstance(record.msg, dict) else ""
        key = (record.name, record.levelname, event, code)
        return key if key in self._kinds or len(self._kinds) < self._rate.kinds else ("", "", "", "")

    def _sum(self, key: tuple[str, ...], kind: _Kind) -> None:
        if kind.withheld:
            logger, level, event, code = key
            told: dict[str, Any] = {"what": event, "logger": logger, "times": kind.withheld}
            structlog.get_logger(__name__).warning(REPEATED, **told, of_level=level, **({"code": code} if code else {}))


def _event(record: logging.LogRecord) -> str:
    """What the line says, without the facts that differ from one to the next."""
    if isinstance(record.msg, dict):
        return str(record.msg.get("event", ""))[:200]
    return str(record.msg)[:200]


LEAST = 4
"""Characters of a secret below which only the whole text itself is hidden: its base64 would be found everywhere."""
WORD, TOKEN = 6, 16
"""Characters of a password that is hidden wherever it stands, and of a name without one that is taken for a token: shorter ones are
words like `hub`, which an error is full of, and are hidden as the pair that is sent."""
_URL_SAFE = str.maketrans("+/", "-_")


def forms(secrets: Iterable[str]) -> set[str]:
    """Each secret and its other spellings."""
    return {form for secret in secrets for form in _forms(secret)}


def login_secrets(text: str) -> set[str]:
    """What an address tells of a password: itself, and the pair that it is sent as; nothing of a text that is no such address."""
    if "@" not in text or "://" not in text:
        return set()
    try:
        user, password = urlsplit(text).username, urlsplit(text).password
    except ValueError:
        return set()
    if not password:
        return {user, unquote(user)} if user and len(user) >= TOKEN else set()
    pairs = {f"{user}:{password}", f"{unquote(user or '')}:{unquote(password)}"}
    return pairs | {word for word in (password, unquote(password)) if len(word) >= WORD}


def _forms(secret: str) -> Iterator[str]:
    if not secret:
        return
    yield secret
    if len(secret) < LEAST:
        return
    yield quote(secret, safe="")
    for form in (b64encode(secret.encode(errors="replace")).decode(), *_inner(secret.encode(errors="replace"))):
        yield form
        yield form.translate(_URL_SAFE)


def _inner(raw: bytes) -> Iterator[str]:
    """Its base64 in the middle of a longer text: three alignments, without the digits that neighbours share."""
    for before in range(3):
        whole = b64encode(bytes(before) + raw).decode()
        inner = whole[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        if len(inner) >= LEAST + 2:
            yield inner
