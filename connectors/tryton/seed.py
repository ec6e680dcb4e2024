"""What a fresh Tryton needs before a deal can be won in it: a company, people with logins, something to sell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from connectors.tryton.client import Row, TrytonClient

DATABASE = "hub"
PASSWORD = "relay-demo-only"  # noqa: S105 - the server listens on 127.0.0.1 only and is thrown away
CURRENCY = "CNY"
PRODUCT = "实施服务"
COMPANY = "示例科技有限公司"
HUB = "baton"

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
class Account:
    """How to get in: settings for hub.yaml, and the logins of the people (all have the same password)."""

    url: str
    database: str = DATABASE
    login: str = HUB
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
    _make(admin, "res.user", name="接力 Baton", login=HUB, password=PASSWORD)
    _join(admin, HUB, company, [groups[group] for group in ("Sales", *PROJECTS)])
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
