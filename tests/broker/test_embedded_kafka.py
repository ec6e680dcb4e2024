"""The embedded broker against the real thing: starts, restarts, deaths and full disks."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient

from hub.embedded_kafka import EmbeddedKafka

pytestmark = pytest.mark.broker


def test_a_started_broker_answers_a_client(kafka: str) -> None:
    assert list(AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=5).brokers) == [1]


def test_the_port_stays_after_a_crash(broker: EmbeddedKafka) -> None:
    before = broker.bootstrap
    broker._process.stop(0)  # type: ignore[union-attr]
    assert broker.start() == before
