"""All errors of the product: what they are called, and what happens next.

A code (`HUB-E4003`) names one cause. Its message and its fix stand in `texts.yaml`, in both languages; the error itself
carries only the code and the facts (`seen`), so that a log line, a page and a terminal can each say it in their reader's language.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LANGUAGES = ("zh-CN", "en")


@dataclass(frozen=True)
class Place:
    """Where in a file of the user's an error stands. `line` and `column` count from 1; 0 means the whole file."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class HubError(Exception):
    """One cause, by code, with the facts needed to say it. Raise a subclass: it decides what happens next."""

    def __init__(self, code: str, /, *, place: Place | None = None, **seen: Any) -> None:
        super().__init__(code)
        self.code = code
        self.place = place
        self.seen = seen

    def message(self, language: str | None = None) -> str:
        """Say what was seen, in one line."""
        return _fill(text_of(self.code, language)["say"], self.seen, language)

    def fix(self, language: str | None = None) -> str:
        """Say what to do about it, in one line."""
        return _fill(text_of(self.code, language)["fix"], self.seen, language)

    def fields(self) -> dict[str, str]:
        """What a log line tells of it, in the log's language: `code`, `reason`, `fix`, and `place` where it has one."""
        where = {"place": str(self.place)} if self.place else {}
        return {"code": self.code, **where, "reason": self.message(), "fix": self.fix()}

    def __str__(self) -> str:
        where = f"{self.place} " if self.place else ""
        return f"{self.code} {where}{self.message('en')}"


class RetryableError(HubError):
    """Wait and try again: time-out, 429, 5xx, broker or database away. `retry_after` is in seconds, None if not told."""

    def __init__(
        self, code: str, /, *, place: Place | None = None, retry_after: float | None = None, **seen: Any
    ) -> None:
        super().__init__(code, place=place, **seen)
        self.retry_after = retry_after


class UncertainError(RetryableError):
    """The request may have been carried out: never repeat it blindly, look its effect up first."""


class UnreadableError(UncertainError):
    """It was answered, and the answer tells nothing of use: that will hardly change by itself, so patience ends."""


class RejectedError(HubError):
    """This one can never succeed as it is: park it with its reason, and go on to the next."""


class FatalError(HubError):
    """Stop the program: wrong settings, refused credentials, state that contradicts the log."""


def preferred_language() -> str:
    """The language of messages: that of the person, else Chinese."""
    return chosen_language() or "zh-CN"


def chosen_language() -> str | None:
    """The language of the person: `HUB_LANG`, else the locale's; None where neither names one of ours, as `C.UTF-8` does."""
    told = (os.environ.get(name) for name in ("HUB_LANG", "LC_ALL", "LC_MESSAGES", "LANG"))
    wanted = next(filter(None, told), "").lower()
    return next((language for language in LANGUAGES if wanted.startswith(language[:2])), None)


@functools.cache
def texts() -> dict[str, dict[str, dict[str, str]]]:
    """Every error text: code → {say, fix} → language → text."""
    loaded: dict[str, dict[str, dict[str, str]]] = read_texts(Path(__file__).parent)
    return loaded


def read_texts(folder: Path) -> Any:
    """A part's own `texts.yaml`. By libyaml, as all wheels of PyYAML have it: a tenth of the time of a program's first message."""
    return yaml.load((folder / "texts.yaml").read_bytes(), _LOADER)  # noqa: S506  # both are safe


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def text_of(code: str, language: str | None = None) -> dict[str, str]:
    """The message and the fix of a code in one language."""
    chosen = language or preferred_language()
    entry = texts()[code]
    return {part: entry[part][chosen] for part in ("say", "fix")}


def _fill(template: str, seen: dict[str, Any], language: str | None) -> str:
    """Facts stay in their line; only CEL's caret has one of its own, under the row that it points at."""
    facts = {key: _in_line(_of_language(value, language)) for key, value in seen.items()}
    if "near" in seen:
        facts["near"] = _meant(str(facts["near"]), language or preferred_language())
    if "pointed" in seen:
        facts["pointed"] = str(seen["pointed"]).replace("\n", "\n  ")
    return template.format_map(_Seen(facts))


NONE = "—"
"""The fact `near` where there is no name at all."""


def _meant(near: str, language: str) -> str:
    """What is said of the fact `near`: one name that was probably meant, or the names there are."""
    kind = "none" if near == NONE else "some" if ", " in near else "one"
    return _MEANT[kind][language].format(near)


_MEANT = {
    "one": {"zh-CN": "是否指 {}？", "en": "did you mean {}?"},
    "some": {"zh-CN": "现有：{}。", "en": "there are: {}."},
    "none": {"zh-CN": "目前一个也没有。", "en": "there is none yet."},
}


def _of_language(fact: Any, language: str | None) -> Any:
    """A fact that is given in every language is said in the reader's."""
    return fact[language or preferred_language()] if isinstance(fact, dict) and fact.keys() == set(LANGUAGES) else fact


def _in_line(value: Any) -> Any:
    return value.replace("\r\n", "\\n").replace("\n", "\\n") if isinstance(value, str) else value


class _Seen(dict[str, Any]):
    """A fact that was not given shows as its name: a message must never fail on the way to its reader."""

    def __missing__(self, key: str) -> str:
        return "{" + key + "}"
