"""Who may use the embedded broker: who can read the secret in its folder, and nobody else.

Clients sign in by SCRAM, which shows the secret to no one: neither to who watches the loopback, nor to a program of another
account that took the broker's port while it was down; and such a program cannot pass for the broker, as SCRAM proves both sides.
Kafka keeps SCRAM's verifiers in its log, where only a signed-in client can put them. So the broker itself, and the start that
puts them there, sign in by PLAIN with a password that is new at each start and known to `server.properties` alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.ops.embedded_kafka.folder import Folder
from hub.ops.embedded_kafka.wire import HOST

USER, MECHANISM = "hub", "SCRAM-SHA-256"
BROKER = "broker"
ITERATIONS = 4096
"""The least that Kafka takes. The secret is random and long: more would only make each sign-in slower."""
PATIENCE = 20.0
"""Seconds that a broker which answers may take to let the hub in."""


@dataclass(frozen=True)
class StartPassword:
    """What one run of the broker, and the start that watches it, sign in with."""

    text: str = field(repr=False)

    @classmethod
    def fresh(cls) -> StartPassword:
        """Random, and none of the characters that mean something in Kafka's settings."""
        return cls(secrets.token_urlsafe(24))


def client(bootstrap: str, secret: str) -> dict[str, Any]:
    """librdkafka's settings for an embedded broker."""
    return _settings(bootstrap, MECHANISM, USER, secret)


def of_folder(folder: Path, bootstrap: str) -> Mapping[str, Any]:
    """The settings of a client of the broker on this data folder; none when that is not who listens at `bootstrap`."""
    its = Folder(folder)
    port, secret = its.noted_port(), its.noted_secret()
    return client(bootstrap, secret) if secret and bootstrap == f"{HOST}:{port}" else {}


def admit(bootstrap: str, password: StartPassword, secret: str) -> None:
    """Give the hub's account this secret, and return once it can sign in. Raises KafkaException when it can't."""
    from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the last three are public, but not marked so
        AdminClient,
        ScramCredentialInfo,
        ScramMechanism,
        UserScramCredentialUpsertion,
    )

    how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, ITERATIONS)
    admin = AdminClient({**_settings(bootstrap, "PLAIN", BROKER, password.text), **_QUIET})
    upsertion = UserScramCredentialUpsertion(USER, how, secret.encode())
    for done in admin.alter_user_scram_credentials([upsertion], request_timeout=PATIENCE).values():
        done.result(PATIENCE)
    AdminClient({**client(bootstrap, secret), **_QUIET}).list_topics(timeout=PATIENCE)


_QUIET = {"log_level": 0, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200}


def _settings(bootstrap: str, mechanism: str, user: str, password: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": bootstrap,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": mechanism,
        "sasl.username": user,
        "sasl.password": password,
    }
