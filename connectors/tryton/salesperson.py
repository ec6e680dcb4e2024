"""Act in Tryton as its people do, through its own API: sell, lose, finish work. Knows nothing of the hub."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from types import TracebackType
from typing import Self

from connectors.tryton.client import TrytonClient
from connectors.tryton.seed import Account


class Colleague:
    """A person with a login of their own, as the seeded database has them."""

    def __init__(self, account: Account, login: str) -> None:
        self.client = TrytonClient(account.url, account.database, login, account.password, name=login, timeout=60.0)
        self._product: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self.client.close()


class Salesperson(Colleague):
    """Sells. Each step is what pressing Tryton's buttons does; errors are the client's."""

    def __init__(self, account: Account, login: str = "wang.fang") -> None:
        super().__init__(account, login)
        self._currency = account.currency

    def create_opportunity(self, name: str, customer: str, amount: Decimal | str) -> int:
        """Note a lead of some worth with a customer, who is added when new; gives its id."""
        opportunity = {
            "description": name,
            "party": self._customer(customer),
            "amount": Decimal(amount),
            "currency": self._first("currency.currency", ["code", "=", self._currency]),
            "lines": [["create", [{"product": self._service()[0], "unit": self._service()[1], "quantity": 1.0}]]],
        }
        return self.client.create("sale.opportunity", opportunity)

    def pursue(self, opportunity: int) -> None:
        """The lead becomes an opportunity."""
        self.client.press("sale.opportunity", "opportunity", [opportunity])

    def change_amount(self, opportunity: int, amount: Decimal | str) -> None:
        """Its worth is now another."""
        self.client.write("sale.opportunity", [opportunity], {"amount": Decimal(amount)})

    def convert(self, opportunity: int) -> int:
        """The opportunity becomes a draft sale at its amount; gives the sale."""
        worth = self.client.read("sale.opportunity", [opportunity], ["amount"])[0]["amount"]
        self.client.press("sale.opportunity", "convert", [opportunity])
        sale = self._first("sale.sale", ["origin", "=", f"sale.opportunity,{opportunity}"])
        line = self._first("sale.line", ["sale", "=", sale])
        self.client.write("sale.line", [line], {"unit_price": worth})
        return sale

    def win(self, opportunity: int) -> None:
        """From lead to won: pursue, convert, quote, and confirm the sale. Tryton derives the won state from the sale."""
        self.pursue(opportunity)
        sale = self.convert(opportunity)
        self.client.press("sale.sale", "quote", [sale])
        self.client.press("sale.sale", "confirm", [sale])

    def lose(self, opportunity: int) -> None:
        """The customer bought elsewhere."""
        self.client.press("sale.opportunity", "lost", [opportunity])

    def revive(self, opportunity: int) -> None:
        """A lost opportunity is a lead again."""
        self.client.press("sale.opportunity", "lead", [opportunity])

    def sell_more(self, opportunity: int, amount: Decimal | str) -> int:
        """Add a second sale to a won opportunity and quote it: until it is confirmed, the opportunity is open again."""
        first = self._first("sale.sale", ["origin", "=", f"sale.opportunity,{opportunity}"])
        kept = self.client.read("sale.sale", [first], ["party", "invoice_address", "shipment_address", "currency"])[0]
        line = {
            "product": self._service()[0],
            "unit": self._service()[1],
            "quantity": 1.0,
            "unit_price": Decimal(amount),
        }
        more = {**kept, "origin": f"sale.opportunity,{opportunity}", "lines": [["create", [line]]]}
        del more["id"]
        sale = self.client.create("sale.sale", more)
        self.client.press("sale.sale", "quote", [sale])
        return sale

    def confirm(self, sale: int) -> None:
        """The customer ordered what a quotation offered."""
        self.client.press("sale.sale", "confirm", [sale])

    def _customer(self, name: str) -> int:
        found = self.client.search("party.party", [["name", "=", name]], ["id"], limit=1)
        if found:
            return int(found[0]["id"])
        return self.client.create("party.party", {"name": name, "addresses": [["create", [{"city": "上海"}]]]})

    def _service(self) -> tuple[int, int]:
        """What is sold, and its unit."""
        if self._product is None:
            row = self.client.search("product.product", [["salable", "=", True]], ["default_uom"], limit=1)[0]
            self._product = (row["id"], row["default_uom"])
        return self._product

    def _first(self, model: str, clause: list[object]) -> int:
        return int(self.client.search(model, [clause], ["id"], limit=1)[0]["id"])


class ProjectMember(Colleague):
    """Works on tasks."""

    def finish_task(self, task: int) -> None:
        """The task is done."""
        self._set(task, done=True)

    def reopen_task(self, task: int) -> None:
        """The task was not done after all."""
        self._set(task, done=False)

    def _set(self, task: int, *, done: bool) -> None:
        sign = "=" if done else "!="
        status = ["OR", ["progress", sign, 1.0], *([] if done else [["progress", "=", None]])]
        found = self.client.search("project.work.status", [["types", "in", ["task"]], status], ["progress"], limit=1)[0]
        change = {"status": found["id"], "progress": found["progress"] or 0.0}
        self.client.write("project.work", [task], change)


def play(account: Account, name: str, customer: str, amount: Decimal | str) -> int:
    """Win one deal as the seeded salesperson does, and give the opportunity's id."""
    with contextlib.closing(Salesperson(account)) as seller:
        deal = seller.create_opportunity(name, customer, amount)
        seller.win(deal)
        return deal
