"""Working days, against a day-by-day oracle and the calendar that was published."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.calendar import WorkingTime, working_time
from hub.config.yaml_places import parse_yaml
from hub.errors import FatalError, RejectedError

CHINA = WorkingTime("CN", "Asia/Shanghai")


@pytest.mark.parametrize(
    ("start", "days", "day"),
    [
        ("2026-11-20T02:00:00Z", 2, "2026-11-24"),
        ("2026-11-20T02:00:00Z", 3, "2026-11-25"),
        ("2026-11-20T02:00:00Z", 5, "2026-11-27"),
        ("2026-11-20T17:00:00Z", 1, "2026-11-23"),  # already Saturday in Shanghai
        ("2026-11-21T02:00:00+08:00", 0, "2026-11-23"),
        ("2026-11-20T02:00:00Z", 0, "2026-11-20"),
        ("2026-11-23T02:00:00Z", -1, "2026-11-20"),
        ("2026-09-30T02:00:00Z", 1, "2026-10-08"),  # the week of the National Day
        ("2026-10-08T02:00:00Z", 2, "2026-10-10"),  # a Saturday that is worked
        ("2026-09-18T02:00:00Z", 1, "2026-09-20"),  # a Sunday that is worked
        ("2026-02-13T02:00:00Z", 1, "2026-02-14"),
        ("2026-02-14T02:00:00Z", 1, "2026-02-24"),
    ],
)
def test_known_days(start: str, days: int, day: str) -> None:
    assert CHINA.workdays(start, days) == day


@given(
    st.integers(0, 29_000).map(lambda hours: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=hours)),
    st.integers(-40, 40),
)
def test_it_counts_as_a_person_with_a_calendar_does(start: datetime, days: int) -> None:
    first = start.astimezone(ZoneInfo("Asia/Shanghai")).date()
    found = date.fromisoformat(CHINA.workdays(start.isoformat(), days))
    assert CHINA.is_working(found)
    low, high = sorted((first, found))
    between = [low + timedelta(n) for n in range((high - low).days + 1)]
    passed = sum(CHINA.is_working(day) for day in between if day != first)
    assert passed == (abs(days) if days else not CHINA.is_working(first))


def test_the_homes_own_days_win() -> None:
    calendar = parse_yaml("days: {2026-11-23: off, 2026-11-22: work}", "calendar.yaml", {})
    own = working_time("CN", "Asia/Shanghai", calendar, parse_yaml("", "hub.yaml", {}))
    assert own.workdays("2026-11-20T02:00:00Z", 1) == "2026-11-22"
    assert own.workdays("2026-11-20T02:00:00Z", 2) == "2026-11-24"


def test_a_year_whose_moved_weekends_are_not_published_is_an_estimate() -> None:
    assert not CHINA.is_estimated(date(2026, 11, 20))
    assert CHINA.is_estimated(date(2030, 3, 1))
    assert not WorkingTime("US", "UTC").is_estimated(date(2030, 3, 1))


@pytest.mark.parametrize("start", ["", "2026-11-20", "2026-11-20T02:00:00", "yesterday"])
def test_what_is_no_time_is_refused(start: str) -> None:
    with pytest.raises(RejectedError, match="HUB-E3150"):
        CHINA.workdays(start, 1)


def test_absurd_numbers_of_days_are_refused() -> None:
    with pytest.raises(RejectedError, match="HUB-E3151"):
        CHINA.workdays("2026-11-20T02:00:00Z", 10**9)


@pytest.mark.parametrize(
    ("country", "timezone", "calendar", "code"),
    [
        ("XX", "UTC", "", "HUB-E3152"),
        ("CN", "Asia/Peking", "", "HUB-E3153"),
        ("CN", "UTC", "days: {2027-02-30: work}", "HUB-E3001"),
        ("CN", "UTC", "days: {2027-02-14: maybe}", "HUB-E3001"),
        ("CN", "UTC", "dayz: {}", "HUB-E3001"),
        ("CN", "UTC", "- x", "HUB-E3001"),
    ],
)
def test_wrong_settings_are_refused(country: str, timezone: str, calendar: str, code: str) -> None:
    with pytest.raises(FatalError, match=code):
        working_time(country, timezone, parse_yaml(calendar, "calendar.yaml", {}), parse_yaml("", "hub.yaml", {}))
