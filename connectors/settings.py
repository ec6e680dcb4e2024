"""Reads an instance's settings into its connector's model, and says of each mistake where it stands and what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from hub.connector import Instance, Limits
from hub.errors import FatalError
from schemas.data import Amount, Currency, Day
from schemas.event import CommandType, EventType, Reference


class Settings(BaseModel):
    """The base of every connector's settings: immutable, and a key that nobody reads is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=False, hide_input_in_errors=True)


class LimitSettings(Settings):
    """The `limits` of an instance, with the defaults of `hub.connector.Limits`."""

    per_second: float = Field(default=Limits.per_second, gt=0)
    at_once: int = Field(default=Limits.at_once, ge=1, le=256)
    timeout: float = Field(default=Limits.timeout, gt=0, le=300)
    settle: float = Field(default=Limits.settle, ge=0, le=300)
    tries: int = Field(default=Limits.tries, ge=1, le=1000)

    @property
    def limits(self) -> Limits:
        """As the executor wants them."""
        return Limits(self.per_second, self.at_once, self.timeout, self.settle, self.tries)


Model = TypeVar("Model", bound=Settings)
Path = tuple[str | int, ...]

_SHAPES = {
    "string": '"…"',
    "int": "10",
    "float": "1.5",
    "bool": "true",
    "list": "[…]",
    "tuple": "[…]",
    "dict": "{…}",
    "model": "{…}",
}
"""What a value of each kind looks like in YAML; it reads the same in every language."""
_EXAMPLES = {
    str(get_args(type_)[1].pattern): example
    for type_, example in [
        (EventType, "crm.opportunity.won"),
        (CommandType, "task.create"),
        (Reference, "opportunity/crm/1024"),
        (Amount, '"880000.10"'),
        (Currency, "CNY"),
        (Day, "2026-11-20"),
    ]
}
"""For people, an example says more than a pattern."""


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


def wrong(instance: Instance, path: Path, wanted: str, got: object) -> FatalError:
    """A setting whose value cannot be used; `got` is shown, so it may be no secret."""
    return FatalError(
        "HUB-E4012",
        place=instance.place(path),
        instance=instance.name,
        setting=dotted(path),
        expected=wanted,
        got=short(got),
    )


def _rank(details: ErrorDetails) -> int:
    """An unknown key first: the missing one is often the same key, misspelt."""
    return {"extra_forbidden": 0, "missing": 1}.get(details["type"], 2)


def _mistake(details: ErrorDetails, model: type[BaseModel], instance: Instance, secrets: Collection[str]) -> FatalError:
    path: Path = tuple(part for part in details["loc"] if not _is_tag(part))
    seen: dict[str, Any] = {"instance": instance.name, "setting": dotted(path)}
    if details["type"] == "extra_forbidden":
        known = sorted(_keys(model, path[:-1]))
        suggestion = closest(str(path[-1]), known) or " | ".join(known)
        seen |= {"known": ", ".join(known) or "—", "suggestion": suggestion or "—"}
        return FatalError("HUB-E4010", place=instance.place(path), **seen)
    if details["type"] == "missing":
        return FatalError("HUB-E4011", place=instance.place(path[:-1]), **seen)
    names = ".".join(part for part in path if isinstance(part, str))
    hidden = any(names == secret or names.startswith(secret + ".") for secret in secrets)
    got = "***" if hidden else short(details["input"])
    return FatalError("HUB-E4012", place=instance.place(path), expected=expected(details), got=got, **seen)


def _is_tag(part: str | int) -> bool:
    """Pydantic puts the member of a union that it tried into the path: `list[str]`, `function-before[…]`."""
    return isinstance(part, str) and ("[" in part or part in ("str", "int", "float", "bool"))


def expected(details: ErrorDetails) -> str:
    """What pydantic wanted, written so that it reads the same in every language."""
    context = details.get("ctx", {})
    kind = details["type"]
    if "expected" in context:
        return str(context["expected"])
    bound = {"greater_than": "> {gt}", "greater_than_equal": ">= {ge}", "less_than_equal": "<= {le}"}.get(kind)
    if bound:
        return bound.format(**context)
    if "error" in context:
        return str(context["error"])
    if "pattern" in context:
        return _EXAMPLES.get(str(context["pattern"]), str(context["pattern"]))
    return _SHAPES.get(kind.split("_")[0], kind)


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


def _keys(model: type[BaseModel], path: Path) -> set[str]:
    """The keys that may stand at `path`: found by walking the models down that path."""
    models = [model]
    for part in path:
        if isinstance(part, str):
            fields = [
                field for each in models for name, field in each.model_fields.items() if (field.alias or name) == part
            ]
            models = [found for field in fields for found in _models(field.annotation)] or models
    return {field.alias or name for each in models for name, field in each.model_fields.items()}


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
