"""Customer relations: opportunities, accounts, complaints."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.fields import Amount, Currency, Data, Person


class Opportunity(Data):
    """A sales opportunity as of the event. Subject: `opportunity/<instance>/<id>`."""

    name: str = Field(description="what the deal is called")
    account: str = Field(description="the customer's name")
    amount: Amount = Field(description="its worth, in `currency`")
    currency: Currency
    owner: Person | None = Field(default=None, description="the salesperson")


class Account(Data):
    """A customer. Subject: `account/<instance>/<id>`."""

    name: str = Field(description="the customer's name")


class Complaint(Data):
    """A customer's complaint. Subject: `complaint/<instance>/<id>`."""

    customer: str = Field(description="the customer's name")
    text: str = Field(description="the complaint, in the customer's words")
    severity: Annotated[int, Field(ge=0, description="larger is worse; the scale is the source's own")]
