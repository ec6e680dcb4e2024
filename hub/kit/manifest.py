"""The model of `manifest.toml`: a connector's description, readable without importing its code."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from hub.errors import FatalError, Place
from hub.kit.connector import Idempotency
from schemas.envelope import CommandType, EventType

FILE = "manifest.toml"
ANY = "*"
"""In `emits` and `takes`: any type named in the settings of an instance."""

Filled = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LocalizedText(_Strict):
    """A text for people, in both languages."""

    zh: Filled
    en: Filled

    def in_language(self, language: str) -> str:
        """The text for `zh-CN` or `en`."""
        return self.en if language == "en" else self.zh


class CommandSupport(_Strict):
    """A type of command that the connector executes, and its idempotency class."""

    type: CommandType | Literal["*"]
    once: Idempotency | Literal["settings"]
    """`settings`: each instance sets it in hub.yaml."""


class Setting(_Strict):
    """One setting of an instance, by its path in hub.yaml: `receive.verify.secret`."""

    name: Filled
    about: LocalizedText
    secret: bool = False
    required: bool = False


class Item(_Strict):
    """A part of the system's interface: done, to do, or exempt for a reason."""

    about: LocalizedText
    state: Literal["done", "todo", "exempt"]
    reason: LocalizedText | None = None

    @model_validator(mode="after")
    def _has_reason(self) -> Self:
        if self.state != "done" and self.reason is None:
            raise ValueError(f"{self.about.en}: what is not done needs a reason")
        return self


class Manifest(_Strict):
    """One connector. `emits` and `takes` are exact: the contract suite compares them with the code."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
    title: LocalizedText
    summary: LocalizedText
    kind: Literal["any", "crm", "erp", "im", "pm", "hub"]
    learns: Literal["poll", "webhook", "both", "none"]
    """How it learns of changes in the system."""
    guarantee: LocalizedText
    """What may be lost or duplicated between the system and the hub, and when."""
    quality: Literal["bronze", "silver", "gold"]
    """Bronze: the contract suite on samples. Silver: also run against the real system. Gold: also through its outages."""
    people: Literal["accounts", "persons"] = "accounts"
    """How `send` expects people: as accounts of the system, or as `person/<id>`, which needs no account."""
    emits: tuple[EventType | Literal["*"], ...] = ()
    takes: tuple[CommandSupport, ...] = ()
    settings: tuple[Setting, ...] = ()
    items: tuple[Item, ...]

    @property
    def secrets(self) -> frozenset[str]:
        """The settings that must never be shown."""
        return frozenset(setting.name for setting in self.settings if setting.secret)


def read(folder: Path) -> Manifest:
    """Read the manifest of a connector's folder; raises FatalError that names the file and the entry."""
    file = folder / FILE
    try:
        return Manifest.model_validate(tomllib.loads(file.read_text("utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise FatalError("HUB-E4051", place=Place(str(file)), file=f"{folder.name}/{FILE}", reason=reason)
