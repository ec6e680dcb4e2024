"""Client settings for the embedded broker, from the files that it leaves in its data folder.

Only an account that can read the folder's secret can sign in: see `hub.ops.embedded_kafka.sign_in`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
USER, MECHANISM = "hub", "SCRAM-SHA-256"
SECRET_FILE, PORT_FILE = "secret", "port"


def client(bootstrap: str, secret: str) -> dict[str, Any]:
    """librdkafka's settings for an embedded broker."""
    return sasl_settings(bootstrap, MECHANISM, USER, secret)


def client_of_folder(folder: Path, bootstrap: str) -> Mapping[str, Any]:
    """The settings of a client of the broker on this data folder; empty when another broker listens at `bootstrap`."""
    port, secret = number_in(folder / PORT_FILE), secret_in(folder)
    return client(bootstrap, secret) if secret and bootstrap == f"{HOST}:{port}" else {}


def secret_in(folder: Path) -> str | None:
    """The stored secret; None when there is none."""
    try:
        return (folder / SECRET_FILE).read_text("ascii").strip() or None
    except FileNotFoundError:
        return None


def number_in(file: Path) -> int | None:
    """The number that a small file holds; None for a missing or empty one."""
    try:
        return int(file.read_text())
    except (FileNotFoundError, ValueError):  # empty: the disk was full, or the machine stopped while it was written
        return None


def sasl_settings(bootstrap: str, mechanism: str, user: str, password: str) -> dict[str, Any]:
    """librdkafka's settings for signing in without TLS."""
    return {
        "bootstrap.servers": bootstrap,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": mechanism,
        "sasl.username": user,
        "sasl.password": password,
    }
