"""Tryton's typed JSON: what plain JSON cannot say travels as an object with a `__class__`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

_READERS: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "datetime": lambda v: datetime(  # noqa: DTZ001 - Tryton's times carry no zone; they are UTC
        v["year"], v["month"], v["day"], v["hour"], v["minute"], v["second"], v["microsecond"]
    ),
    "date": lambda v: date(v["year"], v["month"], v["day"]),
    "time": lambda v: time(v["hour"], v["minute"], v["second"], v["microsecond"]),
    "timedelta": lambda v: timedelta(seconds=v["seconds"]),
    "Decimal": lambda v: Decimal(v["decimal"]),
    "bytes": lambda v: base64.b64decode(v["base64"]),
}


def loads(raw: bytes) -> Any:
    """Read typed JSON. Times are naive and in UTC, as Tryton keeps them. Raises ValueError for no JSON or a broken type."""
    try:
        return json.loads(raw, object_hook=_read)
    except (KeyError, TypeError, ArithmeticError) as broken:
        raise ValueError(f"a typed value is broken: {broken!r}") from broken


def dumps(value: Any) -> bytes:
    """Write typed JSON; raises TypeError for a value that Tryton has no type for, and for a time with a zone."""
    return json.dumps(value, default=_write, ensure_ascii=False, separators=(",", ":")).encode()


def _read(found: dict[str, Any]) -> Any:
    reader = _READERS.get(found.get("__class__", ""))
    return reader(found) if reader else found


def _write(value: object) -> dict[str, Any]:
    match value:
        case datetime():
            if value.tzinfo is not None:
                raise TypeError("Tryton's times carry no zone: give it in UTC without one")
            return {"__class__": "datetime", **_day(value), **_clock(value)}
        case date():
            return {"__class__": "date", **_day(value)}
        case time():
            return {"__class__": "time", **_clock(value)}
        case timedelta():
            return {"__class__": "timedelta", "seconds": value.total_seconds()}
        case Decimal():
            return {"__class__": "Decimal", "decimal": str(value)}
        case bytes():
            return {"__class__": "bytes", "base64": base64.b64encode(value).decode()}
    raise TypeError(f"Tryton has no type for {type(value).__name__}")


def _day(value: date) -> dict[str, int]:
    return {"year": value.year, "month": value.month, "day": value.day}


def _clock(value: datetime | time) -> dict[str, int]:
    return {
        "hour": value.hour,
        "minute": value.minute,
        "second": value.second,
        "microsecond": value.microsecond,
    }
