"""Acts in Tryton as its users do, through its own API: sell, lose, finish work. Knows nothing of the hub.

Also seeds a fresh Tryton with what winning a deal needs: a company, people with logins, a product to sell.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import Self

from connectors.tryton.client import Row, TrytonClient

DATABASE = "hub"
PASSWORD = "relay-demo-only"  # noqa: S105 - the server listens on 127.0.0.1 only and is thrown away
CURRENCY = "CNY"
PRODUCT = "实施服务"
COMPANY = "示例科技有限公司"
HUB_LOGIN = "baton"

SALES = ("Sales", "Sale Opportunity")
PROJECTS = ("Project Administration", "Timesheet Administration")
PEOPLE: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "wang.fang": ("王芳", SALES),
    "zhang.wei": ("张伟", SALES),
    "li.lei": ("李雷", PROJECTS),
    "lin.tao": ("林涛", PROJECTS),
}
"""Login → name and groups of each person."""


@dataclass(frozen=True)
class DemoAccess:
    """Access data: settings for hub.yaml, and the logins of the people (all have the same password)."""

    url: str
    database: str = DATABASE
    login: str = HUB_LOGIN
    password: str = PASSWORD
    salespeople: tuple[str, ...] = ("wang.fang", "zhang.wei")
    lead: str = "li.lei"
    engineer: str = "lin.tao"
    currency: str = CURRENCY

    def settings(self) -> dict[str, str]:
        """The settings of an instance in hub.yaml. Everything in this database is the demo's, so it is read from its start."""
        return {
            "use": "tryton",
            "url": self.url,
            "database": self.database,
            "login": self.login,
            "password": self.password,
            "since": "beginning",
        }


def seed(admin: TrytonClient) -> None:
    """Fill an empty database. `admin` is its administrator, who has no company yet."""
    currency = _make(admin, "currency.currency", name="人民币", code=CURRENCY, numeric_code="156", symbol="¥")
    _make(admin, "currency.currency.rate", currency=currency, rate=Decimal(1))
    company = _make(admin, "company.company", party=_party(admin, COMPANY), currency=currency, timezone="Asia/Shanghai")
    groups: dict[str, int] = {row["name"]: row["id"] for row in _find(admin, "res.group", ["name"])}
    _join(admin, "admin", company, list(groups.values()))
    for login, (name, belongs) in PEOPLE.items():
        employee = _make(admin, "company.employee", party=_party(admin, name), company=company)
        user = _make(admin, "res.user", name=name, login=login, password=PASSWORD)
        _write(admin, "res.user", user, employees=[["add", [employee]]])
        _join(admin, login, company, [groups[group] for group in belongs])
        _write(admin, "res.user", user, employee=employee)
    _make(admin, "res.user", name="接力 Baton", login=HUB_LOGIN, password=PASSWORD)
    _join(admin, HUB_LOGIN, company, [groups[group] for group in ("Sales", *PROJECTS)])
    _something_to_sell(admin, company)


def _something_to_sell(admin: TrytonClient, company: int) -> None:
    """One service with a revenue account: with manual invoices and shipments a sale needs nothing more."""
    here = {"company": company}
    manual = {"sale_invoice_method": "manual", "sale_shipment_method": "manual"}
    admin.bare("model.sale.configuration.write", [1], manual, here, writes=True)
    kind = _make(admin, "account.account.type", name="收入", statement="income", revenue=True, company=company)
    account = _make(admin, "account.account", name="销售收入", code="6001", type=kind, company=company)
    category = admin.bare(
        "model.product.category.create",
        [{"name": "服务", "accounting": True, "account_revenue": account}],
        here,
        writes=True,
    )[0]
    unit = _find(admin, "product.uom", ["id"], ["symbol", "=", "u"])[0]["id"]
    template = {
        "name": PRODUCT,
        "type": "service",
        "salable": True,
        "default_uom": unit,
        "sale_uom": unit,
        "list_price": Decimal(1),
        "account_category": category,
        "products": [["create", [{}]]],
    }
    admin.bare("model.product.template.create", [template], here, writes=True)


def _party(admin: TrytonClient, name: str) -> int:
    return _make(admin, "party.party", name=name)


def _join(admin: TrytonClient, login: str, company: int, groups: list[int]) -> None:
    user = _find(admin, "res.user", ["id"], ["login", "=", login])[0]["id"]
    _write(admin, "res.user", user, groups=[["add", groups]], companies=[["add", [company]]])
    _write(admin, "res.user", user, company=company)


def _make(admin: TrytonClient, model: str, **values: object) -> int:
    return int(admin.bare(f"model.{model}.create", [values], {}, writes=True)[0])


def _write(admin: TrytonClient, model: str, id_: int, **values: object) -> None:
    admin.bare(f"model.{model}.write", [id_], values, {}, writes=True)


def _find(admin: TrytonClient, model: str, fields: list[str], *domain: list[object]) -> list[Row]:
    found: list[Row] = admin.bare(f"model.{model}.search_read", list(domain), 0, 1000, None, fields, {})
    return found


class Colleague:
    """A user of the seeded database, with a login of their own."""

    def __init__(self, account: DemoAccess, login: str) -> None:
        self.client = TrytonClient(account.url, account.database, login, account.password, name=login, timeout=60.0)
        self._product: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


class Salesperson(Colleague):
    """A salesperson. Each step does what pressing Tryton's buttons does; errors are the client's."""

    def __init__(self, account: DemoAccess, login: str = "wang.fang") -> None:
        super().__init__(account, login)
        self._currency = account.currency

    def create_opportunity(self, name: str, customer: str, amount: Decimal | str) -> int:
        """Create a lead of this amount with a customer, who is added when new; returns its id."""
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
        """Set another amount."""
        self.client.write("sale.opportunity", [opportunity], {"amount": Decimal(amount)})

    def convert(self, opportunity: int) -> int:
        """The opportunity becomes a draft sale at its amount; returns the sale's id."""
        amount = self.client.read("sale.opportunity", [opportunity], ["amount"])[0]["amount"]
        self.client.press("sale.opportunity", "convert", [opportunity])
        sale = self._first("sale.sale", ["origin", "=", f"sale.opportunity,{opportunity}"])
        line = self._first("sale.line", ["sale", "=", sale])
        self.client.write("sale.line", [line], {"unit_price": amount})
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
        shared = self.client.read("sale.sale", [first], ["party", "invoice_address", "shipment_address", "currency"])[0]
        line = {
            "product": self._service()[0],
            "unit": self._service()[1],
            "quantity": 1.0,
            "unit_price": Decimal(amount),
        }
        values = {**shared, "origin": f"sale.opportunity,{opportunity}", "lines": [["create", [line]]]}
        del values["id"]
        sale = self.client.create("sale.sale", values)
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
        """The ids of the product and of its unit."""
        if self._product is None:
            row = self.client.search("product.product", [["salable", "=", True]], ["default_uom"], limit=1)[0]
            self._product = (row["id"], row["default_uom"])
        return self._product

    def _first(self, model: str, clause: list[object]) -> int:
        return int(self.client.search(model, [clause], ["id"], limit=1)[0]["id"])


class ProjectMember(Colleague):
    """A project member, who works on tasks."""

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


def win_deal(account: DemoAccess, name: str, customer: str, amount: Decimal | str) -> int:
    """Win one deal as the seeded salesperson does, and return the opportunity's id."""
    with contextlib.closing(Salesperson(account)) as seller:
        deal = seller.create_opportunity(name, customer, amount)
        seller.win(deal)
        return deal
