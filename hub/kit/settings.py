"""Reads an instance's settings into its connector's model, and says of each mistake where it stands and what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from hub.config.expecting import Expected, Words, plainly, wanted
from hub.config.validation import default_at, keys_at, without_tags
from hub.errors import FatalError
from hub.kit.connector import Instance, RateLimits


class Settings(BaseModel):
    """The base of every connector's settings: immutable, and a key that nobody reads is refused."""

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
        """As the executor wants them."""
        return RateLimits(self.per_second, self.at_once, self.timeout, self.settle, self.tries)


Model = TypeVar("Model", bound=Settings)
Path = tuple[str | int, ...]


def read(model: type[Model], instance: Instance, secrets: Collection[str] = ()) -> Model:
    """Check `instance.settings` by `model`. `secrets` are the paths (`receive.verify.secret`) whose values are never shown.

    Raises FatalError for the first mistake: an unknown key (with the one that was meant), a missing one, a wrong value.
    """
    given = {key: value for key, value in instance.settings.items() if key != "use"}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        details = min(error.errors(include_url=False), key=_rank)
        raise _mistake(details, model, instance, secrets) from None


def closest(word: str, known: Collection[str]) -> str | None:
    """The known word that was probably meant, None when none is near."""
    found = difflib.get_close_matches(word, known, n=1)
    return found[0] if found else None


def wrong(instance: Instance, path: Path, expected: str | Expected, got: object) -> FatalError:
    """A setting whose value cannot be used; `got` is shown, so it may be no secret. A text that is expected is written as it is."""
    told = plainly(expected) if isinstance(expected, str) else expected
    seen = {"instance": instance.name, "setting": dotted(path), "got": short(got), **told._asdict()}
    return FatalError("HUB-E4012", place=instance.place(path), **seen)


def _rank(details: ErrorDetails) -> int:
    """An unknown key first: the missing one is often the same key, misspelt."""
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
    told = wanted(details, None if hidden else default_at(model, path))._asdict()
    return FatalError("HUB-E4012", place=instance.place(path), got=got, **seen, **told)


def expected(details: ErrorDetails) -> Words:
    """What pydantic wanted, in both languages."""
    return wanted(details).expected


def short(value: object) -> str:
    """A value as an error shows it: never long."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def dotted(path: Sequence[str | int]) -> str:
    """A path as people write it: `receive.events[0].time`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")
