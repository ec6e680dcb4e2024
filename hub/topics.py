"""Making the hub's topics on a broker, and refusing one that was made differently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # its stub forgets to export it

from hub.errors import FatalError
from hub.kafka_log import away
from schemas.topics import ALL, PARTITIONS, Topic, settings_of

MOST_COPIES = 3


def ensure_topics(
    client: Mapping[str, Any], *, replication: int | None = None, partitions: int = PARTITIONS
) -> list[str]:
    """Make the topics that are missing; their names. Quick when all are there, and any number of programs may do it at once.

    Without `replication`, each is kept by as many brokers as there are, up to three: the cluster's own default is often one,
    and the log is the truth. All of them but one must have a record before it counts as written.

    Raises RetryableError while the broker is away, FatalError for a topic with another number of partitions: cases would no
    longer lie where their state is.
    """
    admin = AdminClient({**client, "log_level": 2})
    try:
        cluster = admin.list_topics(timeout=10)
    except KafkaException as error:
        raise away(error) from error
    there, copies = cluster.topics, replication or min(MOST_COPIES, len(cluster.brokers))
    for topic in ALL:
        if topic.name in there and len(there[topic.name].partitions) != partitions:
            found = len(there[topic.name].partitions)
            raise FatalError("HUB-E2106", topic=topic.name, found=found, wanted=partitions)
    missing = [topic for topic in ALL if topic.name not in there]
    return _make(admin, missing, copies, partitions) if missing else []


def _make(admin: AdminClient, topics: list[Topic], copies: int, partitions: int) -> list[str]:
    in_sync = {"min.insync.replicas": str(max(1, copies - 1))}
    asked = [NewTopic(t.name, partitions, copies, config={**settings_of(t), **in_sync}) for t in topics]
    for future in admin.create_topics(asked, operation_timeout=20).values():
        try:
            future.result(30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise away(error) from error
    return [topic.name for topic in topics]
