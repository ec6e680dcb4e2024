"""Times as people say them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from hub.errors import RejectedError

_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def time_of(text: str) -> str:
    """A time as people say it, `2h` or `1d` ago or written out. Raises RejectedError for what is none."""
    from schemas.event import moment, stamp

    ago = _AGO.fullmatch(text)
    if ago is not None:
        return stamp(datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])}))
    try:
        named = datetime.fromisoformat(text)
        return stamp(named.astimezone() if named.tzinfo is None else moment(text))
    except ValueError as error:
        raise RejectedError("HUB-E6209", time=text) from error
