"""Orders, stock, invoices and expenses."""

from __future__ import annotations

from pydantic import Field

from schemas.fields import Amount, Currency, Data, Day, Person, Quantity


class Order(Data):
    """A customer's order. Subject: `order/<instance>/<id>`."""

    number: str | None = Field(default=None, description="the number printed on it")
    customer: str | None = Field(default=None, description="the customer's name")
    amount: Amount | None = None
    currency: Currency | None = None


class Stock(Data):
    """What is on hand of one item. Subject: `item/<instance>/<sku>`. Quantities are in the item's own unit."""

    item: str = Field(description="the item's name or number")
    quantity: Quantity
    minimum: Quantity | None = None


class Invoice(Data):
    """An invoice. Subject: `invoice/<instance>/<id>`."""

    number: str | None = Field(default=None, description="the number printed on it")
    amount: Amount
    currency: Currency
    due: Day | None = None


class Expense(Data):
    """An expense as booked. Subject: `expense/<instance>/<id>`."""

    amount: Amount
    currency: Currency
    by: Person | None = None
    text: str | None = Field(default=None, description="what it was for")
