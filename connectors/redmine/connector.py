"""The Redmine connector: joins client, source and target behind `hub.kit.connector`."""

from __future__ import annotations

from connectors.redmine.client import RedmineClient
from connectors.redmine.people import RedmineUsers
from connectors.redmine.settings import Names, RedmineSettings
from connectors.redmine.source import RedmineSource
from connectors.redmine.target import RedmineTarget
from hub.kit import settings as reader
from hub.kit.connector import Connector, Instance
from hub.runtime.clock import SystemClock


def connect(instance: Instance) -> Connector:
    """Make the connector of one Redmine; opens no connection. Raises FatalError for wrong settings."""
    settings = reader.read(RedmineSettings, instance, secrets=("key",))
    client = RedmineClient(settings.url, settings.key, name=instance.name, limits=settings.limits.limits)
    names = Names(client, settings, instance)
    people = RedmineUsers(client, instance.name, settings.accounts)
    source = RedmineSource(client, instance.name, settings, names, people, SystemClock())
    return Connector(
        instance,
        polls=source,
        sends=RedmineTarget(client, instance.name, settings, names, people),
        check=lambda: _check(client, names),
        reread=source.reread,
    )


def _check(client: RedmineClient, names: Names) -> str:
    """Test the key, and find everything that the settings name."""
    login = client.me()["login"]
    client.latest()
    tracker = f" · tracker {names.tracker}" if names.tracker else ""
    return f"Redmine {client.url} · {login} · cf_{names.field} · role {names.role}{tracker}"
