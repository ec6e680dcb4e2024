"""librdkafka's connection settings, as Faust wants them said."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from faust.auth import SASLCredentials, SSLCredentials
from faust.types.auth import CredentialsT


def faust_broker(client: Mapping[str, Any]) -> tuple[str, CredentialsT | None]:
    """The broker's URL and its credentials."""
    hosts = str(client["bootstrap.servers"]).split(",")
    return ";".join(f"kafka://{host.strip()}" for host in hosts), _credentials(client)


def _credentials(client: Mapping[str, Any]) -> CredentialsT | None:
    protocol = str(client.get("security.protocol", "plaintext")).lower()
    context = _tls(client) if protocol.endswith("ssl") else None
    if protocol.startswith("sasl"):
        return SASLCredentials(
            mechanism=client["sasl.mechanism"],
            username=client["sasl.username"],
            password=client["sasl.password"],
            ssl_context=context,
        )
    return SSLCredentials(context=context) if context else None


def _tls(client: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=client.get("ssl.ca.location"))
    if "ssl.certificate.location" in client:
        # Without a password OpenSSL would ask for one at the terminal and wait there.
        password = client.get("ssl.key.password", "")
        context.load_cert_chain(client["ssl.certificate.location"], client.get("ssl.key.location"), password)
    return context
