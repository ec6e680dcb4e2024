"""Reads an instance's settings into its connector's model, and reports a mistake with its place and a suggestion."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from hub.config.expecting import Expected, Words, expected_value, same_in_both
from hub.config.validation import default_at, keys_at, without_tags
from hub.errors import FatalError
from hub.kit.connector import Instance, RateLimits


class Settings(BaseModel):
    """The base of every connector's settings: immutable, unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=False, hide_input_in_errors=True)


class LimitSettings(Settings):
    """The `limits` of an instance, with the defaults of `hub.kit.connector.RateLimits`."""

    per_second: float = Field(default=RateLimits.per_second, gt=0)
    at_once: int = Field(default=RateLimits.at_once, ge=1, le=256)
    timeout: float = Field(default=RateLimits.timeout, gt=0, le=300)
    settle: float = Field(default=RateLimits.settle, ge=0, le=300)
    tries: int = Field(default=RateLimits.tries, ge=1, le=1000)

    @property
    def limits(self) -> RateLimits:
        """The same limits for the executor."""
        return RateLimits(self.per_second, self.at_once, self.timeout, self.settle, self.tries)


Model = TypeVar("Model", bound=Settings)
Path = tuple[str | int, ...]


def read(model: type[Model], instance: Instance, secrets: Collection[str] = ()) -> Model:
    """Validate `instance.settings` with `model`. `secrets` are the paths (`receive.verify.secret`) whose values are never shown.

    Raises FatalError for the first mistake: an unknown key (with the closest known one), a missing key, a wrong value.
    """
    given = {key: value for key, value in instance.settings.items() if key != "use"}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        details = min(error.errors(include_url=False), key=_rank)
        raise _mistake(details, model, instance, secrets) from None


def closest(word: str, known: Collection[str]) -> str | None:
    """The known word closest to this one, None when none is close."""
    matches = difflib.get_close_matches(word, known, n=1)
    return matches[0] if matches else None


def wrong(instance: Instance, path: Path, expected: str | Expected, got: object) -> FatalError:
    """The error for a setting with an unusable value; `got` is shown: never pass a secret. A text in `expected` is shown as is."""
    expectation = same_in_both(expected) if isinstance(expected, str) else expected
    seen = {"instance": instance.name, "setting": dotted(path), "got": short(got), **expectation._asdict()}
    return FatalError("HUB-E4012", place=instance.place(path), **seen)


def _rank(details: ErrorDetails) -> int:
    """Unknown keys first: a missing key is often the same key, misspelt."""
    return {"extra_forbidden": 0, "missing": 1}.get(details["type"], 2)


def _mistake(details: ErrorDetails, model: type[BaseModel], instance: Instance, secrets: Collection[str]) -> FatalError:
    path = without_tags(details, {key: value for key, value in instance.settings.items() if key != "use"})
    seen: dict[str, Any] = {"instance": instance.name, "setting": dotted(path)}
    if details["type"] == "extra_forbidden":
        known = sorted(keys_at(model, path[:-1]))
        suggestion = closest(str(path[-1]), known) or " | ".join(known)
        seen |= {"known": ", ".join(known) or "—", "suggestion": suggestion or "—"}
        return FatalError("HUB-E4010", place=instance.place(path), **seen)
    if details["type"] == "missing":
        return FatalError("HUB-E4011", place=instance.place(path[:-1]), **seen)
    names = ".".join(part for part in path if isinstance(part, str))
    hidden = any(names == secret or names.startswith(secret + ".") for secret in secrets)
    got = "***" if hidden else short(details["input"])
    expectation = expected_value(details, None if hidden else default_at(model, path))._asdict()
    return FatalError("HUB-E4012", place=instance.place(path), got=got, **seen, **expectation)


def expected(details: ErrorDetails) -> Words:
    """What pydantic expected, in both languages."""
    return expected_value(details).expected


def short(value: object) -> str:
    """A value for an error message, cut to 60 characters."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def dotted(path: Sequence[str | int]) -> str:
    """A path in dotted form: `receive.events[0].time`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")
