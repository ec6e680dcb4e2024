"""Working days: a country's calendar, with China's moved weekends (调休), and the exceptions in the home's `calendar.yaml`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, available_timezones

if TYPE_CHECKING:
    from holidays import HolidayBase

from hub.config.expecting import Expected, expected_day, of_choices, of_kind
from hub.config.yaml_places import Located
from hub.errors import FatalError, RejectedError
from schemas.envelope import parse_time

MAX_WORKDAYS = 2000
"""Upper limit of one `workdays` call: nearly eight years."""
OFF, WORK = "off", "work"


@dataclass(frozen=True)
class WorkingTime:
    """The working days of one country, in one time zone. `days` are the home's exceptions: they win over the country's."""

    country: str
    timezone: str
    days: Mapping[date, bool] = field(default_factory=dict)
    written: range = range(0)
    """Years for which `days` is complete, apart from days that follow their weekday: as recorded in a log."""

    def workdays(self, start: str | datetime, n: int) -> str:
        """The day, as `YYYY-MM-DD`, `n` working days after the day of `start` in the time zone; before it if negative.

        0 is that day itself, or the next working day. Raises RejectedError for an invalid start or too large an n.
        """
        if abs(n) > MAX_WORKDAYS:
            raise RejectedError("HUB-E3151", days=n, most=MAX_WORKDAYS)
        try:
            return self._counted(self.day(start), n)
        except OverflowError as error:
            raise RejectedError("HUB-E3154", time=str(start)[:60], days=n) from error

    @functools.cached_property
    def _counted(self) -> Callable[[date, int], str]:
        """`_count`, cached: most events of a day need the same few days."""
        return functools.lru_cache(4096)(self._count)

    def _count(self, day: date, n: int) -> str:
        step = timedelta(days=-1 if n < 0 else 1)
        left = abs(n)
        while left or not self.is_working(day):
            day += step
            left -= left > 0 and self.is_working(day)
        return day.isoformat()

    def day(self, start: str | datetime) -> date:
        """The calendar day of a time in the time zone; raises RejectedError for a text that is no RFC 3339 time."""
        try:
            at = start if isinstance(start, datetime) else parse_time(start)
            return at.astimezone(self._zone).date()
        except (ValueError, OverflowError) as error:
            raise RejectedError("HUB-E3150", time=str(start)[:60]) from error

    @functools.cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    def is_working(self, day: date) -> bool:
        """Whether it is a working day."""
        known = self.days.get(day)
        if known is None and day.year in self.written:
            return day.weekday() < 5
        return _is_working(self.country, day) if known is None else known

    def is_estimated(self, day: date) -> bool:
        """Whether the year's moved weekends are not published yet, so that its working days may still change."""
        return _moves_weekends(self.country) and not _published(self.country, day.year)


def working_time(country: str, timezone: str, calendar: Located | None, places: Located) -> WorkingTime:
    """Validate the settings and combine them with the home's `calendar.yaml`; raises FatalError with the place in either file."""
    if not _is_known(country):
        raise FatalError("HUB-E3152", place=places.place(("calendar",)), country=country)
    if timezone not in available_timezones():
        raise FatalError("HUB-E3153", place=places.place(("timezone",)), timezone=timezone)
    return WorkingTime(country, timezone, _own_days(calendar) if calendar is not None else {})


def _own_days(calendar: Located) -> dict[date, bool]:
    content = calendar.sound().value or {}
    days = content.get("days", {}) if isinstance(content, dict) else None
    if not isinstance(days, dict) or set(content) - {"days"}:
        raise _wrong(
            "calendar.yaml", content, (), calendar, of_kind("映射 days", "a map of days", "days: {2027-02-14: work}")
        )
    return {_date(key, calendar): _is_work(value, key, calendar) for key, value in days.items()}


def _date(text: str, calendar: Located) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        place = calendar.key_place(("days", text))
        seen = {"setting": "days", "got": text[:60], **expected_day(text)._asdict()}
        raise FatalError("HUB-E3001", place=place, **seen) from error


def _is_work(value: object, key: str, calendar: Located) -> bool:
    if value not in (WORK, OFF):
        raise _wrong(f"days.{key}", value, ("days", key), calendar, of_choices([WORK, OFF], value))
    return value == WORK


def _wrong(setting: str, got: object, path: tuple[str | int, ...], calendar: Located, expected: Expected) -> FatalError:
    seen = {"setting": setting, "got": str(got)[:60], **expected._asdict()}
    return FatalError("HUB-E3001", place=calendar.place(path), **seen)


def _is_known(country: str) -> bool:
    import holidays  # slow to import, and most commands need no calendar

    return country in holidays.list_supported_countries()


@functools.cache
def _calendar(country: str) -> HolidayBase:
    import holidays

    return holidays.country_holidays(country)


@functools.lru_cache(maxsize=20_000)
def _is_working(country: str, day: date) -> bool:
    return bool(_calendar(country).is_working_day(day))


def _moves_weekends(country: str) -> bool:
    return bool(_calendar(country).has_substituted_holidays)


@functools.cache
def _published(country: str, year: int) -> bool:
    calendar = _calendar(country)
    calendar.is_working_day(date(year, 6, 1))  # makes the library fill in that year
    return any(day.year == year for day in calendar.weekend_workdays)
