"""Sign-in at the embedded broker: only programs that can read the secret in its folder may use it.

Clients sign in by SCRAM, which never sends the secret: neither a sniffer on the loopback nor a program of another account that took
the broker's port while it was down can learn it. Nor can such a program pose as the broker, as SCRAM authenticates both sides.
Kafka stores SCRAM's verifiers in its log, where only a signed-in client can write them. So the broker itself, and the start that
writes them, sign in by PLAIN with a password that is new at each start and stored in `server.properties` only.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from hub.log.embedded_client import USER, client, sasl_settings

BROKER = "broker"
ITERATIONS = 4096
"""The least that Kafka takes. The secret is random and long: more would only make each sign-in slower."""
SIGN_IN_TIMEOUT_S = 20.0
"""For a broker that answers to accept the hub's sign-in."""


@dataclass(frozen=True)
class StartPassword:
    """The password of one run of the broker, and of the start that watches it."""

    text: str = field(repr=False)

    @classmethod
    def fresh(cls) -> StartPassword:
        """A random password without characters that are special in Kafka's settings."""
        return cls(secrets.token_urlsafe(24))


def admit(bootstrap: str, password: StartPassword, secret: str) -> None:
    """Give the hub's account this secret, and return once it can sign in. Raises KafkaException when it can't."""
    from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the last three are public, but not marked so
        AdminClient,
        ScramCredentialInfo,
        ScramMechanism,
        UserScramCredentialUpsertion,
    )

    how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, ITERATIONS)
    admin = AdminClient({**sasl_settings(bootstrap, "PLAIN", BROKER, password.text), **_QUIET})
    upsertion = UserScramCredentialUpsertion(USER, how, secret.encode())
    for done in admin.alter_user_scram_credentials([upsertion], request_timeout=SIGN_IN_TIMEOUT_S).values():
        done.result(SIGN_IN_TIMEOUT_S)
    AdminClient({**client(bootstrap, secret), **_QUIET}).list_topics(timeout=SIGN_IN_TIMEOUT_S)


_QUIET = {"log_level": 0, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200}
