"""The base model of event data, and the field types that events and commands share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Data(BaseModel):
    """The base of an event's data: immutable. Additional fields are preserved; a changed meaning needs a new version."""

    model_config = ConfigDict(frozen=True, extra="allow")


Amount = Annotated[
    str,
    StringConstraints(pattern=r"^-?[0-9]{1,20}(\.[0-9]{1,10})?$"),
    Field(description="plain decimal text: never a float, never an exponent"),
]
"""Money."""
Quantity = Amount | int | float
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$"), Field(description="ISO 4217 code")]
Day = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
    Field(description="a calendar day in the hub's time zone"),
]
Person = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200),
    "person",
    Field(description="person/<id>, or account/<instance>/<account> for an unknown person"),
]
"""A connector's mapping gives the system's account; intake resolves it by people.yaml. An account that people.yaml does not list
becomes `account/<instance>/<account>`."""
Object = Annotated[str, "object"]
"""An object of the target system: its id there, or its reference, which the executor replaces with the id."""


class Deleted(Data):
    """The subject was deleted in its source system. Its last known data remains on the entity."""

    by: Person | None = Field(default=None, description="who deleted it")
