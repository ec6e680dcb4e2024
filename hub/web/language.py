"""Localization: the texts of the web, and times, money and people formatted for the reader's language."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from babel.dates import format_date, format_datetime, format_time
from babel.numbers import format_currency, format_decimal, get_currency_symbol
from markupsafe import Markup, escape

from hub.errors import LANGUAGES, read_texts
from hub.health import words
from hub.health.status import HealthStatus, Trouble
from hub.health.words import duration
from hub.web.settings import PersonName
from schemas.envelope import parse_time

LOCALES = {"zh-CN": "zh_Hans_CN", "en": "en"}
UNITS = ((Decimal(100_000_000), "亿"), (Decimal(10_000), "万"))


@functools.cache
def texts() -> Mapping[str, Mapping[str, str]]:
    """The texts of the web: id → language → text."""
    loaded: Mapping[str, Mapping[str, str]] = read_texts(Path(__file__).parent)
    return loaded


def chosen(requested: str | None, saved: str | None, accepted: str, default: str) -> str:
    """The reader's language: from the URL, else the cookie, else the Accept-Language header, else the hub's default."""
    for wanted in (requested, saved, *_accepted(accepted), default):
        found = _known(wanted)
        if found is not None:
            return found
    return LANGUAGES[0]


def _known(wanted: str | None) -> str | None:
    start = (wanted or "").strip().lower()[:2]
    return next((language for language in LANGUAGES if start and language.lower().startswith(start)), None)


def _accepted(header: str) -> list[str]:
    ranked = []
    for place, part in enumerate(header.split(",")[:20]):
        name, _, quality = part.partition(";q=")
        try:
            ranked.append((-float(quality or 1), place, name))
        except ValueError:
            continue
    return [name for _, _, name in sorted(ranked)]


def of_language(texts_by_language: Mapping[str, str] | None, language: str) -> str:
    """The text in a language; `zh` serves for `zh-CN`, and any language if that one is missing."""
    available = texts_by_language or {}
    short = language.partition("-")[0]
    found = (
        available.get(language)
        or available.get(short)
        or next((t for name, t in available.items() if name[:2] == short), None)
    )
    return found or next(iter(available.values()), "")


@dataclass(frozen=True)
class Localizer:
    """Formats for one reader. Times are shown in the hub's time zone."""

    language: str
    zone: ZoneInfo
    people: Mapping[str, PersonName]
    now: datetime

    @property
    def locale(self) -> str:
        return LOCALES[self.language]

    @property
    def today(self) -> str:
        return self.now.astimezone(self.zone).date().isoformat()

    def __call__(self, text: str, /, **facts: object) -> str:
        """The text with this id, filled with its facts."""
        return texts()[text][self.language].format(**facts)

    def html(self, text: str, /, **facts: object) -> Markup:
        """The same for HTML texts; facts are escaped."""
        return Markup(texts()[text][self.language]).format(**{name: escape(fact) for name, fact in facts.items()})  # noqa: S704

    def state(self, name: str) -> str:
        """The name of a stage or step; a user-defined one, unchanged."""
        found = next((known for kind in ("task", "state") if (known := f"{kind}.{name}") in texts()), None)
        return self(found) if found else name

    def title(self, by_language: Mapping[str, str] | None) -> str:
        """A title given in several languages."""
        return of_language(by_language, self.language)

    def time(self, stamp: str | None) -> str:
        """A time: only the time of day if it is today, otherwise with the day."""
        if not stamp:
            return ""
        local = parse_time(stamp).astimezone(self.zone)
        if local.date().isoformat() == self.today:
            return format_time(local, "HH:mm:ss", locale=self.locale)
        return f"{self.day(local.date().isoformat())} {format_time(local, 'HH:mm', locale=self.locale)}"

    def moment(self, stamp: str) -> str:
        """A time in full."""
        local = parse_time(stamp).astimezone(self.zone)
        pattern = "y年M月d日 EEE HH:mm:ss" if self.language == "zh-CN" else "EEE d MMM y HH:mm:ss"
        return format_datetime(local, pattern, locale=self.locale)

    def day(self, day: str | None) -> str:
        """A day with its weekday; an invalid day, unchanged."""
        try:
            parsed = date.fromisoformat(day or "")
        except ValueError:
            return day or ""
        pattern = "M月d日 EEE" if self.language == "zh-CN" else "EEE d MMM"
        return str(format_date(parsed, pattern, locale=self.locale))

    def left(self, day: str | None) -> str:
        """The days remaining until a day, as text."""
        try:
            days = (date.fromisoformat(day or "") - date.fromisoformat(self.today)).days
        except ValueError:
            return ""
        if days < 0:
            return self("due.late", days=-days)
        return self("due.today") if days == 0 else self("due.left", days=days)

    def ago(self, seconds: float) -> str:
        """A duration, rounded to its largest unit."""
        for size, text in ((86_400, "ago.days"), (3_600, "ago.hours"), (60, "ago.minutes")):
            if seconds >= size:
                return self(text, count=int(seconds // size))
        return self("ago.seconds", count=f"{max(0.0, seconds):.1f}" if seconds < 10 else int(seconds))

    def ticking(self, seconds: float) -> Markup:
        """A duration to the second that open pages keep counting up."""
        span = '<span class="ticks" data-age="{}">{}</span>'
        return Markup(span).format(int(seconds), duration(seconds, self.language))  # noqa: S704  # our own text

    def sentence(self, status: HealthStatus) -> Markup:
        """A health status in one sentence, with ticking durations."""
        return self._with_ticks(lambda age: words.sentence(status, self.language, age))

    def trouble(self, trouble: Trouble) -> Markup:
        """One trouble as a sentence, with ticking durations."""
        return self._with_ticks(lambda age: words.trouble_text(trouble, self.language, age))

    def _with_ticks(self, render: Callable[[words.DurationFormat], str]) -> Markup:
        ages: list[float] = []

        def mark(seconds: float, _language: str) -> str:
            ages.append(seconds)
            return "\0"

        first, *rest = str(render(mark)).split("\0")
        return escape(first) + Markup("").join(
            self.ticking(age) + escape(part) for age, part in zip(ages, rest, strict=False)
        )

    def number(self, value: float) -> str:
        """A count."""
        return str(format_decimal(value, locale=self.locale))

    def money(self, amount: str | None, currency: str | None) -> str:
        """An amount at a glance: 88万 in Chinese, 880,000 in English."""
        value = _decimal(amount)
        if value is None:
            return amount or ""
        if self.language == "zh-CN":
            for size, unit in UNITS:
                if abs(value) >= size:
                    short = format_decimal((value / size).quantize(Decimal("0.01")), "#,##0.##", locale=self.locale)
                    return f"{get_currency_symbol(currency or '', locale=self.locale)}{short}{unit}"
        return self.exact(amount, currency)

    def exact(self, amount: str | None, currency: str | None) -> str:
        """An amount with all its digits."""
        value = _decimal(amount)
        if value is None:
            return amount or ""
        places = "¤#,##0.##########"
        return str(format_currency(value, currency or "", places, locale=self.locale, currency_digits=False))

    def person(self, ref: str | None) -> str:
        """A person's name; for a person who is not in people.yaml, the account."""
        known = self.people.get(ref or "")
        return known.name if known else (ref or "").rpartition("/")[2]

    def department(self, ref: str | None) -> str:
        """A person's department, "" if unknown."""
        known = self.people.get(ref or "")
        return self.title(known.department) if known else ""

    def field(self, value: Any) -> str:
        """A field of an object: a person by name, any other value as `value`."""
        return self.person(value) if isinstance(value, str) and value in self.people else self.value(value)

    def value(self, value: Any) -> str:
        """A value that a rule's condition read, as text."""
        match value:
            case None:
                return "—"
            case bool():
                return self("yes") if value else self("no")
            case _:
                return str(value)


def _decimal(amount: str | None) -> Decimal | None:
    try:
        value = Decimal(amount or "")
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def seconds_since(stamp: str, now: datetime) -> float:
    """Seconds from a timestamp until now; infinity for an empty one."""
    return (now.astimezone(UTC) - parse_time(stamp)).total_seconds() if stamp else float("inf")
