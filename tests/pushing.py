"""Pushes for tests: the acme CRM of the examples, its signed deliveries, and people who have accounts there."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from standardwebhooks import Webhook

from connectors.http.connector import connect
from hub.kit.connector import Connector, Delivery, Fact, Instance, Unmapped
from hub.ledger import outbox, parked
from hub.ledger.database import AnyRow
from hub.ledger.ledger import Ledger
from schemas.envelope import Event

KEY = base64.b64encode(b"a key of twenty-four byt").decode()
SECRET = f"whsec_{KEY}"
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
_DEAL = {
    "name": "${body.deal.title}",
    "account": "${body.deal.customer}",
    "amount": "${decimal(body.deal.amount)}",
    "currency": "${body.deal.currency}",
    "owner": "${body.deal.owner}",
}


def crm(
    name: str = "crm", data: dict[str, str] | None = None, scheme: str = "standard-webhooks", **more: Any
) -> Connector:
    """An instance of the http connector as examples/acme has it, or with another mapping of a deal's data."""
    deal = {"subject": f"opportunity/{name}/${{body.deal.id}}", "version": "${body.deal.version}", "time": "${body.at}"}
    events = [
        {"if": f'body.type == "deal.{told}"', "type": f"crm.opportunity.{told}", **deal, "data": data or _DEAL}
        for told in ("won", "changed", "lost")
    ]
    verify = {"scheme": scheme, "secret": SECRET}
    return connect(Instance(name, "http", {"use": "http", "receive": {"verify": verify, "events": events, **more}}))


def deal(number: int | str = 1, *, kind: str = "won", version: int = 7, **more: Any) -> bytes:
    """What the CRM posts about a deal."""
    told = {
        "id": f"O-{number}",
        "version": str(version),
        "title": "网关项目",
        "customer": "华为",
        "amount": 880000,
        "currency": "CNY",
        "owner": "U-3",
        **more,
    }
    return json.dumps({"type": f"deal.{kind}", "at": "2026-11-20T10:00:00+08:00", "deal": told}).encode()


def signed(body: bytes, id_: str = "msg_1", secret: str = SECRET, at: datetime | None = None) -> dict[str, str]:
    """The headers of a push, signed as Standard Webhooks says."""
    moment = at or datetime.now(UTC)
    return {
        "content-type": "application/json",
        "webhook-id": id_,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(id_, moment, body.decode()),
    }


def delivery(body: bytes, id_: str = "msg_1", received: datetime = NOON) -> Delivery:
    """A push as the front door hands it over."""
    return Delivery(signed(body, id_), body, received)


@dataclass
class Staff:
    """People with accounts."""

    accounts: dict[tuple[str, str], str] = field(default_factory=lambda: {("crm", "U-3"): "person/wang.fang"})

    def person_of(self, instance: str, account: str) -> str | None:
        return self.accounts.get((instance, account))


@dataclass
class Telling:
    """A receiver whose mapping says just what a test wants it to say."""

    told: tuple[Fact | Unmapped, ...] = ()

    def verify(self, delivery: Delivery) -> None:
        """Everything is signed well."""

    def id_of(self, delivery: Delivery) -> str | None:
        return delivery.headers.get("webhook-id")

    def read(self, delivery: Delivery) -> tuple[Fact | Unmapped, ...]:
        return self.told


def fact(type_: str = "crm.opportunity.changed", subject: str = "opportunity/crm/O-1", /, **more: Any) -> Fact:
    """A fact about a deal unless said otherwise."""
    data = {"name": "网关项目", "account": "华为", "amount": "880000", "currency": "CNY", "owner": "U-3"}
    given: dict[str, Any] = {"version": "1", "time": NOON, "data": data if type_.startswith("crm.opp") else {}}
    return Fact(type_, subject, **{**given, **more})


def events(ledger: Ledger) -> list[Event]:
    """What the outbox holds, in the order in which it is relayed."""
    with ledger.reading() as conn:
        rows = conn.execute(select(outbox.outbox).order_by(outbox.outbox.c.id)).all()
    return [Event.from_json(row.body) for row in rows]


def open_entries(ledger: Ledger) -> list[AnyRow]:
    """What is parked, oldest first."""
    with ledger.reading() as conn:
        return list(parked.open_entries(conn))
