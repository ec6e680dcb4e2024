"""What the hub's programs write about themselves: one JSON object a line on standard error, without secrets."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Collection
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from hub.log_limit import LimitedHandler

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
