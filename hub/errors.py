"""The error hierarchy: each class decides what happens next, each code (`HUB-E4003`) names one cause.

A code's message and fix are in `texts.yaml`, in both languages. The error carries only the code and the facts (`seen`), so that a
log line, a page and a terminal each render it in their reader's language.
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
    """The place of an error in a user's file. `line` and `column` count from 1; 0 means the whole file."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class HubError(Exception):
    """An error by its code, with the facts for its message. Raise a subclass: it decides what happens next."""

    def __init__(self, code: str, /, *, place: Place | None = None, **seen: Any) -> None:
        super().__init__(code)
        self.code = code
        self.place = place
        self.seen = seen

    def message(self, language: str | None = None) -> str:
        """The message, in one line."""
        return _fill(text_of(self.code, language)["say"], self.seen, language)

    def fix(self, language: str | None = None) -> str:
        """The advice on what to do, in one line."""
        return _fill(text_of(self.code, language)["fix"], self.seen, language)

    def fields(self) -> dict[str, str]:
        """Fields for a log line, in the log's language: `code`, `reason`, `fix`, and `place` if there is one."""
        where = {"place": str(self.place)} if self.place else {}
        return {"code": self.code, **where, "reason": self.message(), "fix": self.fix()}

    def __str__(self) -> str:
        where = f"{self.place} " if self.place else ""
        return f"{self.code} {where}{self.message('en')}"


class RetryableError(HubError):
    """Wait and try again: time-out, 429, 5xx, broker or database away. `retry_after` is in seconds, None if unknown."""

    def __init__(
        self, code: str, /, *, place: Place | None = None, retry_after: float | None = None, **seen: Any
    ) -> None:
        super().__init__(code, place=place, **seen)
        self.retry_after = retry_after


class UncertainError(RetryableError):
    """The request may have been executed: never repeat it blindly, look its effect up first."""


class UnreadableError(UncertainError):
    """A response that cannot be interpreted: it is unlikely to change, so the number of retries is limited."""


class RejectedError(HubError):
    """This one can never succeed unchanged: park it with its reason, and continue with the next."""


class FatalError(HubError):
    """Stop the program: wrong settings, refused credentials, state that contradicts the log."""


def preferred_language() -> str:
    """The language of messages: the user's choice, else Chinese."""
    return chosen_language() or "zh-CN"


def chosen_language() -> str | None:
    """The user's language: `HUB_LANG`, else the locale's; None if neither is a supported one, as for `C.UTF-8`."""
    values = (os.environ.get(name) for name in ("HUB_LANG", "LC_ALL", "LC_MESSAGES", "LANG"))
    wanted = next(filter(None, values), "").lower()
    return next((language for language in LANGUAGES if wanted.startswith(language[:2])), None)


@functools.cache
def texts() -> dict[str, dict[str, dict[str, str]]]:
    """Every error text: code → {say, fix} → language → text."""
    loaded: dict[str, dict[str, dict[str, str]]] = read_texts(Path(__file__).parent)
    return loaded


def read_texts(folder: Path) -> Any:
    """The `texts.yaml` of a folder. Parsed by libyaml, which all PyYAML wheels have: ten times faster for the first message."""
    return yaml.load((folder / "texts.yaml").read_bytes(), _LOADER)  # noqa: S506  # both are safe


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def text_of(code: str, language: str | None = None) -> dict[str, str]:
    """The message and the fix of a code in one language."""
    chosen = language or preferred_language()
    entry = texts()[code]
    return {part: entry[part][chosen] for part in ("say", "fix")}


def _fill(template: str, seen: dict[str, Any], language: str | None) -> str:
    """Fill in the facts, line breaks escaped; except CEL's caret, which has a line of its own below the row it points at."""
    facts = {key: _escaped(_localized(value, language)) for key, value in seen.items()}
    if "near" in seen:
        facts["near"] = _suggestion(str(facts["near"]), language or preferred_language())
    if "pointed" in seen:
        facts["pointed"] = str(seen["pointed"]).replace("\n", "\n  ")
    return template.format_map(_Facts(facts))


NO_NAMES = "—"
"""The fact `near` when no names exist."""


def _suggestion(near: str, language: str) -> str:
    """The sentence for the fact `near`: one name that was probably meant, or the existing names."""
    kind = "none" if near == NO_NAMES else "some" if ", " in near else "one"
    return _SUGGESTIONS[kind][language].format(near)


_SUGGESTIONS = {
    "one": {"zh-CN": "是否指 {}？", "en": "did you mean {}?"},
    "some": {"zh-CN": "现有：{}。", "en": "there are: {}."},
    "none": {"zh-CN": "目前一个也没有。", "en": "there is none yet."},
}


def _localized(fact: Any, language: str | None) -> Any:
    """A localized fact in the reader's language; any other fact unchanged."""
    return fact[language or preferred_language()] if isinstance(fact, dict) and fact.keys() == set(LANGUAGES) else fact


def _escaped(value: Any) -> Any:
    return value.replace("\r\n", "\\n").replace("\n", "\\n") if isinstance(value, str) else value


class _Facts(dict[str, Any]):
    """A missing fact is shown as its name: rendering a message must never fail."""

    def __missing__(self, key: str) -> str:
        return "{" + key + "}"
