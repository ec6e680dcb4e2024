"""Validates a user's file with a pydantic model, and reports every mistake with its place and a suggestion."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from hub.config.expecting import Expected, expected_value, same_in_both
from hub.config.yaml_places import Located, Path
from hub.errors import NO_NAMES, FatalError


class Strict(BaseModel):
    """The base of user-written settings: immutable, unknown keys are refused, a number is accepted as text."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, hide_input_in_errors=True)


class Titled(Strict):
    """A text in both languages."""

    zh: str
    en: str

    @property
    def by_language(self) -> dict[str, str]:
        """Language → text."""
        return {"zh-CN": self.zh, "en": self.en}


Model = TypeVar("Model", bound=BaseModel)


def check(
    model: type[Model], located: Located, path: Path = (), where: str = ""
) -> tuple[Model | None, list[FatalError]]:
    """The value at `path` parsed by the model, or None and every mistake in it. `where` names that part for people."""
    value: Any = located.value
    for part in path:
        value = value[part]
    try:
        parsed = model.model_validate({} if value is None else value)
    except ValidationError as error:
        mistakes = [_mistake(details, model, located, path, where) for details in error.errors(include_url=False)]
        unknown = {mistake.place for mistake in mistakes if mistake.code == "HUB-E3005"}
        return None, [each for each in mistakes if each.code != "HUB-E3007" or not unknown or each.place not in unknown]
    return parsed, list(_altered_numbers(parsed, located, path))


def _altered_numbers(parsed: BaseModel, located: Located, base: Path) -> Iterator[FatalError]:
    """Errors for numbers in text settings that would become another text: 12.50."""
    dumped = parsed.model_dump(by_alias=True) if located.written else {}
    for path, text in located.written.items():
        value: Any = dumped if path[: len(base)] == base else None
        for part in path[len(base) :]:
            value = _part(value, part)
        if isinstance(value, str) and value != text:
            yield FatalError("HUB-E3012", place=located.place(path), text=text, read=value)


def _part(value: Any, part: str | int) -> Any:
    try:
        return value[part]
    except (LookupError, TypeError):
        return None


def unknown_key(located: Located, path: Path, known: Collection[str], where: str) -> FatalError:
    """The error for an unknown key."""
    key = str(path[-1])
    return FatalError("HUB-E3005", place=located.key_place(path), where=where, key=key, near=near(key, known))


def wrong(located: Located, path: Path, expected: str | Expected, got: object) -> FatalError:
    """The error for an unusable value; `got` is shown: never pass a secret. A text in `expected` is shown as is."""
    expectation = same_in_both(expected) if isinstance(expected, str) else expected
    seen = {"setting": dotted(path) or located.file, "got": short(got), **expectation._asdict()}
    return FatalError("HUB-E3001", place=located.place(path), **seen)


def near(part: str, known: Iterable[str]) -> str:
    """The closest known name, else up to eight known names, else `NO_NAMES`. Never the name itself."""
    names = sorted({*known} - {part})
    return next(iter(difflib.get_close_matches(part, names, 1, 0.6)), ", ".join(names[:8]) or NO_NAMES)


def dotted(path: Path) -> str:
    """A path in dotted form: `do[0].task.create`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def short(value: object) -> str:
    """A value for an error message, cut to 60 characters."""
    text = "null" if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _mistake(details: ErrorDetails, model: type[BaseModel], located: Located, base: Path, where: str) -> FatalError:
    value: Any = located.value
    for part in base:
        value = value[part]
    inner = without_tags(details, value)
    path = (*base, *inner)
    if details["type"] == "extra_forbidden":
        return unknown_key(located, path, keys_at(model, inner[:-1]), dotted(path[:-1]) or where or located.file)
    if details["type"] == "missing":
        shown = dotted(path[:-1]) or where or located.file
        return FatalError("HUB-E3007", place=located.place(path[:-1]), where=shown, key=str(path[-1]))
    return wrong(located, path, expected_value(details, default_at(model, inner)), details["input"])


def without_tags(details: ErrorDetails, value: Any) -> Path:
    """The path of the mistake in `value`, without the union members that pydantic adds to it, like `list[str]`."""
    inner, last = list[str | int](), len(details["loc"]) - 1
    for at, part in enumerate(details["loc"]):
        entries = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
        if part in entries:
            value = entries[part]
            inner.append(part)
        elif at == last and details["type"] == "missing":
            inner.append(part)
    return tuple(inner)


def keys_at(model: type[BaseModel], path: Path) -> set[str]:
    """The keys that are allowed at `path`: those of the models along that path."""
    return {info.alias or key for each in _models_at(model, path) for key, info in each.model_fields.items()}


def default_at(model: type[BaseModel], path: Path) -> object:
    """The default of the setting at `path`, as an example of it; None without a default that is a non-empty number or text."""
    above = _models_at(model, path[:-1]) if path else []
    fields = [info for each in above for key, info in each.model_fields.items() if (info.alias or key) == path[-1]]
    return next((info.default for info in fields if type(info.default) in (int, float, str) and info.default), None)


def _models_at(model: type[BaseModel], path: Path) -> list[type[BaseModel]]:
    models = [model]
    for part in path:
        fields = [info for each in models for key, info in each.model_fields.items() if (info.alias or key) == part]
        models = [inner for info in fields for inner in _models(info.annotation)] or models
    return models


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
