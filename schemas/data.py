"""What the data of events is made of: the base model and the types that many of them share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints


class Data(BaseModel):
    """The base of an event's data: immutable. Fields of the user's own are kept; a changed meaning is a new version."""

    model_config = ConfigDict(frozen=True, extra="allow")


Amount = Annotated[str, StringConstraints(pattern=r"^-?\d{1,20}(\.\d{1,10})?$")]
"""Money as plain decimal text: never a float, never an exponent."""
Quantity = Amount | int | float
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
"""ISO 4217."""
Day = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$")]
"""A calendar day in the hub's time zone."""
Person = Annotated[str, StringConstraints(min_length=1, max_length=200), "person"]
"""`person/<id>`. A connector's mapping gives the system's account; intake turns it by people.yaml, and an account that
nobody has stays `account/<instance>/<account>`."""
