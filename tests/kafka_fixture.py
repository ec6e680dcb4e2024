"""A real Kafka for tests that are marked `broker`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.embedded_kafka import BrokerPlan, EmbeddedKafka


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap address of one broker for the whole session. Its tests share it: name topics and groups uniquely."""
    shared = EmbeddedKafka(BrokerPlan(tmp_path_factory.mktemp("kafka") / "data", port=0))
    yield shared.start()
    shared.stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """A broker of the test's own, running, that it may kill, stop and start again."""
    own = EmbeddedKafka(BrokerPlan(tmp_path / "集成, 2026", port=0))
    own.start()
    yield own
    own.stop()
