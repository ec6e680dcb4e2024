"""Making the hub's topics on a broker, and refusing one that was made differently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # its stub forgets to export it

from hub.errors import FatalError
from hub.kafka_log import away
from schemas.topics import ALL, PARTITIONS, Topic, settings_of


def ensure_topics(client: Mapping[str, Any], *, replication: int = 1, partitions: int = PARTITIONS) -> list[str]:
    """Make the topics that are missing; their names. Quick when all are there.

    Raises RetryableError while the broker is away, FatalError for a topic with another number of partitions: cases would no
    longer lie where their state is.
    """
    admin = AdminClient({**client, "log_level": 3})
    try:
        there = admin.list_topics(timeout=10).topics
    except KafkaException as error:
        raise away(error) from error
    for topic in ALL:
        if topic.name in there and len(there[topic.name].partitions) != partitions:
            found = len(there[topic.name].partitions)
            raise FatalError("HUB-E2106", topic=topic.name, found=found, wanted=partitions)
    missing = [topic for topic in ALL if topic.name not in there]
    return _make(admin, missing, replication, partitions) if missing else []


def _make(admin: AdminClient, topics: list[Topic], replication: int, partitions: int) -> list[str]:
    in_sync = {"min.insync.replicas": str(max(1, replication - 1))}
    asked = [NewTopic(t.name, partitions, replication, config={**settings_of(t), **in_sync}) for t in topics]
    for future in admin.create_topics(asked, operation_timeout=20).values():
        try:
            future.result(30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise away(error) from error
    return [topic.name for topic in topics]
