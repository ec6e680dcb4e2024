"""Acme's CRM and project tool, as they push to the hub."""

from __future__ import annotations

import base64
import random
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
import requests
from standardwebhooks import Webhook

SECRETS = {
    name: "whsec_" + base64.b64encode(f"{name}-{'0' * 24}".encode()).decode()
    for name in ("CRM_SECRET", "PM_SECRET", "STOCK_SECRET", "DESK_SECRET")
}


NOON = "2026-11-20T02:00:00Z"


def deal(number: int, *, amount: str = "880000.10", type_: str = "deal.won", version: int = 7, at: str = NOON) -> bytes:
    """The body of a push about a deal."""
    body = (
        '{"type": "%s", "at": "%s", "deal": {"id": "O-%d", "version": "%d", "title": "网关项目 %d", '
        '"customer": "华为", "amount": %s, "currency": "CNY", "owner": "U-3"}}'
    )
    return (body % (type_, at, number, version, number, amount)).encode()


def task_done(task: str) -> bytes:
    """The body of a push about a finished task."""
    return orjson.dumps(
        {"type": "task.done", "at": "2026-11-23T08:00:00Z", "task": {"id": task, "version": "2", "by": "8"}}
    )


@dataclass
class Sender:
    """One system that pushes, and pushes again until it was told 2xx, as senders of webhooks do."""

    url: str
    instance: str
    secret: str
    session: requests.Session = field(default_factory=requests.Session)

    def once(self, body: bytes, delivery: str | None = None, **headers: str) -> requests.Response:
        """One signed push."""
        signed = self.sign(body, delivery or f"msg_{secrets.token_hex(8)}")
        return self.session.post(
            f"{self.url}/webhooks/{self.instance}", body, headers={**signed, **headers}, timeout=10
        )

    def sign(self, body: bytes, delivery: str) -> Mapping[str, str]:
        """The headers of Standard Webhooks, by the vendor's own kit."""
        now = datetime.now(UTC)
        return {
            "webhook-id": delivery,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(self.secret).sign(delivery, now, body.decode()),
            "Content-Type": "application/json",
        }

    def push(self, body: bytes, patience: float = 120.0, delivery: str | None = None, passing: int = 503) -> None:
        """Push until accepted; raises when the hub refuses for good, or for too long. `passing` is no refusal for good."""
        delivery, deadline = delivery or f"msg_{secrets.token_hex(8)}", time.monotonic() + patience
        while True:
            try:
                status = self.once(body, delivery).status_code
            except requests.RequestException:
                status = 503
            if status == 202:
                return
            if (status < 500 and status != passing) or time.monotonic() > deadline:
                raise AssertionError(f"the hub answered {status}")
            time.sleep(0.1)


def shuffled(bodies: Iterable[bytes], seed: int) -> list[bytes]:
    """Each body one to three times, in any order."""
    order = random.Random(seed)
    many = [body for body in bodies for _ in range(order.randint(1, 3))]
    order.shuffle(many)
    return many


def environment(url: str) -> dict[str, str]:
    """What acme's hub.yaml reads from the environment."""
    return {**SECRETS, "PM_URL": url, "IM_URL": url, "ERP_URL": url}


Rows = list[dict[str, Any]]
