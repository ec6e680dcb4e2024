"""Making the hub's topics on a broker, and refusing one that was made differently.

Whether the topics on a broker are kept as the hub needs them, and setting them right. Changes nothing else of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stub forgets to export it  # type: ignore[attr-defined]  # its stub forgets to export them
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from hub.errors import FatalError
from hub.log.kafka_log import away
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


SECONDS = 20.0
FIRST_ANSWER = 5.0
"""Seconds that a broker has to answer at all: somebody waits who may have asked just because it is away."""


class Wrong(NamedTuple):
    """A topic's setting that is another than the hub needs."""

    topic: str
    name: str
    found: str
    wanted: str


class Topics(NamedTuple):
    """What is not as it should be."""

    missing: Sequence[str]
    wrong: Sequence[Wrong]


def examined(client: Mapping[str, Any]) -> Topics:
    """Look at every topic; raises RetryableError while the broker is away."""
    admin = AdminClient({**client, "log_level": 2})
    try:
        there = admin.list_topics(timeout=FIRST_ANSWER).topics
        asked = [ConfigResource(ConfigResource.Type.TOPIC, topic.name) for topic in ALL if topic.name in there]
        told = {
            resource.name: found.result(SECONDS)
            for resource, found in (admin.describe_configs(asked) if asked else {}).items()
        }
    except KafkaException as error:
        raise away(error) from error
    wrong = [
        Wrong(topic.name, name, str(told[topic.name][name].value), wanted)
        for topic in ALL
        if topic.name in told
        for name, wanted in settings_of(topic).items()
        if str(told[topic.name][name].value) != wanted
    ]
    return Topics([topic.name for topic in ALL if topic.name not in there], wrong)


def set_right(client: Mapping[str, Any], wrong: Sequence[Wrong]) -> None:
    """Give topics the settings that they lack, and leave their others; raises RetryableError while the broker is away."""
    changes: dict[str, list[ConfigEntry]] = {}
    for each in wrong:
        entry = ConfigEntry(each.name, each.wanted, incremental_operation=AlterConfigOpType.SET)
        changes.setdefault(each.topic, []).append(entry)
    asked = [
        ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
        for topic, entries in changes.items()
    ]
    admin = AdminClient({**client, "log_level": 2})
    try:
        for done in admin.incremental_alter_configs(asked).values() if asked else ():
            done.result(SECONDS)
    except KafkaException as error:
        raise away(error) from error
