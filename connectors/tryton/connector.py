"""The Tryton connector: joins client, source and target behind `hub.kit.connector`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from connectors.tryton.client import TrytonClient
from connectors.tryton.source import MODELS, TrytonSource
from connectors.tryton.target import TrytonTarget
from hub.config.expecting import text_form
from hub.kit.connector import Connector, Instance, RateLimits
from hub.kit.settings import Settings, read
from hub.runtime.clock import SystemClock

Text = Annotated[str, StringConstraints(min_length=1)]


class TrytonThrottle(Settings):
    """Rate limits of this Tryton. One call at a time: on SQLite two works created at once can get the same number."""

    per_second: float = Field(default=15.0, gt=0)
    at_once: int = Field(default=1, gt=0)
    timeout: float = Field(default=15.0, gt=0)
    settle: float = Field(default=2.0, ge=0)


class TrytonSettings(Settings):
    """An instance's settings in hub.yaml."""

    url: Annotated[str, text_form(r"^https?://[^/\s]+", "网址", "an address", "https://tryton.example")]
    database: Text
    login: Text
    password: Text
    since: Literal["now", "beginning"] = "now"
    interval: float = Field(default=2.0, ge=0.2)
    overlap: float = Field(default=120.0, ge=0)
    limits: TrytonThrottle = TrytonThrottle()


def connect(instance: Instance) -> Connector:
    """Make the connector of one Tryton; opens no connection. Raises FatalError for wrong settings."""
    settings = read(TrytonSettings, instance, secrets=("password",))
    limits = RateLimits(**settings.limits.model_dump())
    client = TrytonClient(
        settings.url,
        settings.database,
        settings.login,
        settings.password,
        name=instance.name,
        timeout=limits.timeout,
    )
    source = TrytonSource(
        client,
        instance.name,
        SystemClock(),
        interval=settings.interval,
        window=settings.overlap,
        from_beginning=settings.since == "beginning",
    )
    target = TrytonTarget(client, instance.name, limits)
    return Connector(instance, polls=source, sends=target, check=lambda: _check(client))


def _check(client: TrytonClient) -> str:
    """Log in and read one record of everything that the streams read."""
    company = client.read("company.company", [client.context()["company"]], ["rec_name", "currency.code"])[0]
    for model in (*MODELS.values(), "party.party", "project.work.status"):
        client.search(model, [], ["id"], limit=1)
    return f"Tryton {client.version()} · {company['rec_name']} ({company['currency.']['code']}) · {client.login}"
