"""Orders, stock, invoices and expenses."""

from __future__ import annotations

from schemas.data import Amount, Currency, Data, Day, Person, Quantity


class Order(Data):
    """A customer's order. Subject: `order/<instance>/<id>`."""

    number: str | None = None
    customer: str | None = None
    amount: Amount | None = None
    currency: Currency | None = None


class Stock(Data):
    """What is on hand of one item. Subject: `item/<instance>/<sku>`. Quantities are in the item's own unit."""

    item: str
    quantity: Quantity
    minimum: Quantity | None = None


class Invoice(Data):
    """An invoice. Subject: `invoice/<instance>/<id>`."""

    number: str | None = None
    amount: Amount
    currency: Currency
    due: Day | None = None


class Expense(Data):
    """An expense as booked. Subject: `expense/<instance>/<id>`."""

    amount: Amount
    currency: Currency
    by: Person | None = None
    text: str | None = None
