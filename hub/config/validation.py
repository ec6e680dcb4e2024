"""Checks what a file of the user's says by a model, and tells every mistake with its place and what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from hub.config.expecting import Expected, plainly, wanted
from hub.config.yaml_places import Located, Path
from hub.errors import NONE, FatalError


class Strict(BaseModel):
    """The base of what users write: immutable, a key that nobody reads is refused, a number may stand where a text is wanted."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, hide_input_in_errors=True)


class Titled(Strict):
    """A text in both languages."""

    zh: str
    en: str

    @property
    def by_language(self) -> dict[str, str]:
        """The texts by the names of the languages."""
        return {"zh-CN": self.zh, "en": self.en}


Model = TypeVar("Model", bound=BaseModel)


def check(
    model: type[Model], located: Located, path: Path = (), where: str = ""
) -> tuple[Model | None, list[FatalError]]:
    """The value at `path` as the model has it, or None and every mistake in it. `where` is what people call that part."""
    value: Any = located.value
    for part in path:
        value = value[part]
    try:
        told = model.model_validate({} if value is None else value)
    except ValidationError as error:
        mistakes = [_mistake(details, model, located, path, where) for details in error.errors(include_url=False)]
        unknown = {found.place for found in mistakes if found.code == "HUB-E3005"}
        return None, [each for each in mistakes if each.code != "HUB-E3007" or not unknown or each.place not in unknown]
    return told, list(_misread(told, located, path))


def _misread(told: BaseModel, located: Located, base: Path) -> Iterator[FatalError]:
    """Numbers that stand where a text is wanted, and would be another text: 12.50."""
    made = told.model_dump(by_alias=True) if located.written else {}
    for path, text in located.written.items():
        found: Any = made if path[: len(base)] == base else None
        for part in path[len(base) :]:
            found = _part(found, part)
        if isinstance(found, str) and found != text:
            yield FatalError("HUB-E3012", place=located.place(path), text=text, read=found)


def _part(value: Any, part: str | int) -> Any:
    try:
        return value[part]
    except (LookupError, TypeError):
        return None


def unknown_key(located: Located, path: Path, known: Collection[str], where: str) -> FatalError:
    """A key that nobody reads."""
    key = str(path[-1])
    return FatalError("HUB-E3005", place=located.key_place(path), where=where, key=key, near=near(key, known))


def wrong(located: Located, path: Path, expected: str | Expected, got: object) -> FatalError:
    """A value that cannot be used; `got` is shown, so it may be no secret. A text that is expected is written as it is."""
    told = plainly(expected) if isinstance(expected, str) else expected
    seen = {"setting": dotted(path) or located.file, "got": short(got), **told._asdict()}
    return FatalError("HUB-E3001", place=located.place(path), **seen)


def near(part: str, known: Iterable[str]) -> str:
    """The known name that was probably meant; else the names there are; `NONE` where there are none. Never the name itself."""
    names = sorted({*known} - {part})
    return next(iter(difflib.get_close_matches(part, names, 1, 0.6)), ", ".join(names[:8]) or NONE)


def dotted(path: Path) -> str:
    """A path as people write it: `do[0].task.create`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def short(value: object) -> str:
    """A value as an error shows it: never long."""
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
    return wrong(located, path, wanted(details, default_at(model, inner)), details["input"])


def without_tags(details: ErrorDetails, value: Any) -> Path:
    """Where in `value` the mistake stands: pydantic puts the member of a union that it tried, like `list[str]`, into the path."""
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
    """The keys that may stand at `path`: found by walking the models down that path."""
    return {info.alias or key for each in _models_at(model, path) for key, info in each.model_fields.items()}


def default_at(model: type[BaseModel], path: Path) -> object:
    """The default of the setting at `path`: the best example of it. None for what has none, or none that shows anything."""
    above = _models_at(model, path[:-1]) if path else []
    fields = [info for each in above for key, info in each.model_fields.items() if (info.alias or key) == path[-1]]
    return next((info.default for info in fields if type(info.default) in (int, float, str) and info.default), None)


def _models_at(model: type[BaseModel], path: Path) -> list[type[BaseModel]]:
    models = [model]
    for part in path:
        fields = [info for each in models for key, info in each.model_fields.items() if (info.alias or key) == part]
        models = [found for info in fields for found in _models(info.annotation)] or models
    return models


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
