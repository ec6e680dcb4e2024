"""A real Kafka for tests that are marked `broker`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.log.embedded_client import client
from hub.ops.embedded_kafka import BrokerPlan, EmbeddedKafka

SECRET = "what-all-brokers-of-the-tests-let-in"


def embedded(data: Path, port: int = 0) -> EmbeddedKafka:
    """A broker whose secret is known to all tests: it is there before the first start, which keeps it."""
    data.mkdir(parents=True, exist_ok=True)
    (data / "secret").write_text(SECRET, "ascii")
    return EmbeddedKafka(BrokerPlan(data, port=port))


def client_of(bootstrap: str) -> dict[str, Any]:
    """librdkafka's settings for a broker that `embedded` made."""
    return client(bootstrap, SECRET)


def let_in(data: Path, bootstrap: str) -> None:
    """Programs whose data folder this is sign in at that broker, as they do at their hub's own."""
    kafka = data / "kafka"
    kafka.mkdir(parents=True, exist_ok=True)
    (kafka / "secret").write_text(SECRET, "ascii")
    (kafka / "port").write_text(bootstrap.rpartition(":")[2], "ascii")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap address of one broker for the whole session. Its tests share it: name topics and groups uniquely."""
    shared = embedded(tmp_path_factory.mktemp("kafka") / "data")
    yield shared.start()
    shared.stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """A broker of the test's own, running, that it may kill, stop and start again."""
    own = embedded(tmp_path / "集成, 2026")
    own.start()
    yield own
    own.stop()
