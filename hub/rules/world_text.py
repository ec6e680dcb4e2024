"""What rules can read of people and of the calendar, as canonical text for the log, and read back from there.

Accounts are left out: no rule can read them. Of the calendar every working day of some decades is written down, since what a
country's holidays are said to be changes with the library that knows them.
"""

from __future__ import annotations

import functools
from datetime import date, timedelta
from typing import Any

import orjson

from hub.rules.people import Department, People, Person
from hub.rules.working_time import WorkingTime

FIRST, LAST = 2010, 2040
"""Years whose working days are written down."""


def people_text(people: People) -> str:
    """Departments with their liaisons; people with name, department and roles."""
    return _canonical(
        {
            "departments": {name: {"liaison": each.liaison} for name, each in people.departments.items()},
            "people": {
                name: {"name": each.name, "department": each.department, "roles": list(each.roles)}
                for name, each in people.people.items()
            },
        }
    )


def people_of(text: str) -> People:
    """The people of such a text; raises ValueError for another."""
    told = _object(text)
    departments = {
        name: Department.model_construct(name=None, liaison=each.get("liaison"))
        for name, each in told["departments"].items()
    }
    people = {
        name: Person(name=each["name"], department=each.get("department"), roles=tuple(each.get("roles", ())))
        for name, each in told["people"].items()
    }
    return People(departments, people)


def calendar_text(working_time: WorkingTime) -> str:
    """Country, time zone, the home's own days, and of the country those days that are not what their weekday says."""
    odd = _odd_days(working_time.country)
    return _canonical(
        {
            "country": working_time.country,
            "timezone": working_time.timezone,
            "days": {day.isoformat(): works for day, works in working_time.days.items()},
            "odd": [day.isoformat() for day in odd],
            "years": [FIRST, LAST],
        }
    )


def working_time_of(text: str) -> WorkingTime:
    """The working days of such a text; raises ValueError for another."""
    told = _object(text)
    first, last = told["years"]
    days = {day: day.weekday() >= 5 for day in map(date.fromisoformat, told["odd"])}
    days |= {date.fromisoformat(day): bool(works) for day, works in told["days"].items()}
    return WorkingTime(str(told["country"]), str(told["timezone"]), days, range(int(first), int(last) + 1))


@functools.lru_cache(maxsize=8)
def _odd_days(country: str) -> tuple[date, ...]:
    """Working weekends and days off from Monday to Friday."""
    plain = WorkingTime(country, "UTC")
    days = (date(FIRST, 1, 1) + timedelta(days=at) for at in range((date(LAST + 1, 1, 1) - date(FIRST, 1, 1)).days))
    return tuple(day for day in days if plain.is_working(day) != (day.weekday() < 5))


def _canonical(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _object(text: str) -> dict[str, Any]:
    try:
        told = orjson.loads(text)
        if not isinstance(told, dict):
            raise ValueError("no object")
    except orjson.JSONDecodeError as error:
        raise ValueError(str(error)) from error
    return told
