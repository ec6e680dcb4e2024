"""What Faust is told about a broker: addresses, TLS, sign-in."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from faust.auth import SASLCredentials, SSLCredentials
from faust.types.auth import AuthProtocol

from hub.processor.source import faust_broker

SASL = {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "hub", "sasl.password": "hidden"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate and its key, which has a password."""
    folder = tmp_path_factory.mktemp("pair")
    certificate, key = str(folder / "hub.pem"), str(folder / "hub.key")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=hub", "-passout", "pass:open"]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


def test_every_address_is_told() -> None:
    found, credentials = faust_broker({"bootstrap.servers": "k1:9092, k2:9092", "security.protocol": "PLAINTEXT"})
    assert (found, credentials) == ("kafka://k1:9092;kafka://k2:9092", None)


def test_a_sign_in_over_tls(pair: tuple[str, str]) -> None:
    client = {"bootstrap.servers": "k:1", "security.protocol": "SASL_SSL", "ssl.ca.location": pair[0], **SASL}
    _, credentials = faust_broker(client)
    assert isinstance(credentials, SASLCredentials)
    assert (credentials.protocol, credentials.mechanism.value) == (AuthProtocol.SASL_SSL, "SCRAM-SHA-512")
    assert (credentials.username, credentials.password) == ("hub", "hidden")
    assert credentials.ssl_context is not None
    assert credentials.ssl_context.verify_mode == ssl.CERT_REQUIRED
    assert credentials.ssl_context.check_hostname


def test_a_key_with_a_password_is_opened_by_it(pair: tuple[str, str], tmp_path: Path) -> None:
    certificate, key = pair
    mine = {"ssl.ca.location": certificate, "ssl.certificate.location": certificate, "ssl.key.location": key}
    client = {"bootstrap.servers": "k:1", "security.protocol": "SSL", **mine}
    _, credentials = faust_broker({**client, "ssl.key.password": "open"})
    assert isinstance(credentials, SSLCredentials)
    with pytest.raises(ssl.SSLError):
        faust_broker(client)  # and does not ask for one at the terminal
