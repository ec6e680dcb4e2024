"""Logging of the hub's programs: one JSON object a line on standard error, rate-limited and without secrets.

A line that repeats is written a limited number of times, then counted: a flood must not fill the disk.

Secrets are masked in every spelling: as they are, percent-encoded, in base64, and as the user and password of a URL. A system that
echoes its input, or an error that quotes it, must not reveal one.
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
OWN_PACKAGES = ("connectors", "hub", "projections")
"""Packages that log at the configured level; others log warnings only."""
_PRIVATE = re.compile(r"password|secret|token|authorization|signature|cookie|api_?key", re.IGNORECASE)


def configure(program: str, secrets: Collection[str] = (), level: int = logging.INFO) -> None:
    """Set up structlog and the standard library's logging for this process, once.

    Masks every value of `secrets`, and every field that is named like a secret.
    """
    masked = SecretMask(secrets)
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
                _program_field(program),
                masked,
                structlog.processors.JSONRenderer(serializer=_json),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for package in OWN_PACKAGES:
        logging.getLogger(package).setLevel(level)
    logging.captureWarnings(True)


class SecretMask:
    """A structlog processor that masks secrets: by field name, and wherever a secret's value occurs in a text."""

    def __init__(self, secrets: Collection[str]) -> None:
        longest_first = sorted((secret for secret in secrets if len(secret) >= 4), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, _logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        return {key: MASK if _PRIVATE.search(key) else self._mask(value) for key, value in event.items()}

    def _mask(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._pattern.sub(MASK, value) if self._pattern else value
        if isinstance(value, dict):
            return {key: MASK if _PRIVATE.search(str(key)) else self._mask(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._mask(inner) for inner in value]
        return value if isinstance(value, int | float | bool | None) else self._mask(str(value))


def _program_field(program: str) -> Any:
    def add_program(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        return {"program": program, **event}

    return add_program


def _json(event: EventDict, **_options: Any) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:  # a text from outside that is not valid UTF-8
        return json.dumps(event, default=str)


REPEATED = "log.repeated"


@dataclass(frozen=True)
class LineRate:
    """At most `lines` alike lines are written in `seconds` seconds."""

    lines: int = 100
    seconds: float = 60.0
    kinds: int = 1000
    """How many kinds of lines are counted separately; all others share one count."""


@dataclass
class _Kind:
    began: float
    written: int = 0
    withheld: int = 0


class LimitedHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream, rate-limited. Lines are alike when logger, event, code and level are the same."""

    def __init__(
        self, stream: TextIO, rate: LineRate | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(stream)
        self._rate, self._clock = rate or LineRate(), clock
        self._kinds: dict[tuple[str, ...], _Kind] = {}
        self._summed_at = clock()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, or count it."""
        event = _event(record)
        if event == REPEATED:
            super().emit(record)
            return
        now = self._clock()
        if now - self._summed_at >= self._rate.seconds:
            self._summed_at = now
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
        """Log how many lines of each kind were suppressed, and reset the counts."""
        kinds, self._kinds = self._kinds, {}
        for key, kind in kinds.items():
            self._sum(key, kind)

    def close(self) -> None:
        """Log the counts that are still pending, then close."""
        self.sum_up()
        super().close()

    def _key(self, record: logging.LogRecord, event: str) -> tuple[str, ...]:
        code = str(record.msg.get("code", "")) if isinstance(record.msg, dict) else ""
        key = (record.name, record.levelname, event, code)
        return key if key in self._kinds or len(self._kinds) < self._rate.kinds else ("", "", "", "")

    def _sum(self, key: tuple[str, ...], kind: _Kind) -> None:
        if kind.withheld:
            logger, level, event, code = key
            fields: dict[str, Any] = {"what": event, "logger": logger, "times": kind.withheld}
            structlog.get_logger(__name__).warning(
                REPEATED, **fields, of_level=level, **({"code": code} if code else {})
            )


def _event(record: logging.LogRecord) -> str:
    """The event of the line, without the fields that differ from line to line."""
    if isinstance(record.msg, dict):
        return str(record.msg.get("event", ""))[:200]
    return str(record.msg)[:200]


MIN_ENCODED_LENGTH = 4
"""A secret with fewer characters is masked only as it is: its base64 would match everywhere."""
MIN_PASSWORD_LENGTH, MIN_TOKEN_LENGTH = 6, 16
"""Minimum characters of a password that is masked everywhere, and of a user name without password that counts as a token. Shorter
ones are words like `hub`, which occur in every error, and are masked only as the `user:password` pair that is sent."""
_URL_SAFE = str.maketrans("+/", "-_")


def spellings(secrets: Iterable[str]) -> set[str]:
    """Each secret and its other spellings."""
    return {form for secret in secrets for form in _spellings(secret)}


def login_secrets(text: str) -> set[str]:
    """The secrets in a URL: its password, and the `user:password` pair as it is sent. Empty for a text without a login."""
    if "@" not in text or "://" not in text:
        return set()
    try:
        user, password = urlsplit(text).username, urlsplit(text).password
    except ValueError:
        return set()
    if not password:
        return {user, unquote(user)} if user and len(user) >= MIN_TOKEN_LENGTH else set()
    pairs = {f"{user}:{password}", f"{unquote(user or '')}:{unquote(password)}"}
    return pairs | {word for word in (password, unquote(password)) if len(word) >= MIN_PASSWORD_LENGTH}


def _spellings(secret: str) -> Iterator[str]:
    if not secret:
        return
    yield secret
    if len(secret) < MIN_ENCODED_LENGTH:
        return
    yield quote(secret, safe="")
    for form in (
        b64encode(secret.encode(errors="replace")).decode(),
        *_embedded_base64(secret.encode(errors="replace")),
    ):
        yield form
        yield form.translate(_URL_SAFE)


def _embedded_base64(raw: bytes) -> Iterator[str]:
    """Its base64 inside a longer text: all three alignments, without the digits shared with neighbouring bytes."""
    for before in range(3):
        whole = b64encode(bytes(before) + raw).decode()
        inner = whole[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        if len(inner) >= MIN_ENCODED_LENGTH + 2:
            yield inner
