"""What the data of events is made of: the base model and the types that many of them share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Data(BaseModel):
    """The base of an event's data: immutable. Fields of the user's own are kept; a changed meaning is a new version."""

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
    Field(description="person/<id>, or account/<instance>/<account> of nobody known"),
]
"""A connector's mapping gives the system's account; intake turns it by people.yaml, and an account that
nobody has stays `account/<instance>/<account>`."""
Object = Annotated[str, "object"]
"""An object of the system that is asked: its id over there, or its reference, of which the executor sends the id."""


class Deleted(Data):
    """The subject is gone from its system. What was known of it stays known."""

    by: Person | None = Field(default=None, description="who deleted it")
