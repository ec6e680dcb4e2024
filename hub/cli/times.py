"""Times as people say them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hub.errors import RejectedError

_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


_clock: list[ZoneInfo] = []


def use_clock_of(zone: str) -> None:
    """Show times by this zone from now on: the home's, as its pages and due dates have it."""
    _clock[:] = [ZoneInfo(zone)]


def shown(stamp: str, form: str) -> str:
    """A moment as the home's clock has it, else this machine's."""
    from schemas.event import moment

    return moment(stamp).astimezone(_clock[0] if _clock else None).strftime(form)


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
