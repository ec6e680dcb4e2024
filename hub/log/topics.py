"""Creates the hub's topics on a broker, refuses one with another partition count, and checks and corrects their settings.

Settings that the hub does not need stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stub forgets to export them
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from hub.errors import FatalError
from hub.log.kafka_log import broker_unavailable
from schemas.topics import ALL, PARTITIONS, Topic, settings_of

MAX_REPLICAS = 3


def ensure_topics(
    client: Mapping[str, Any], *, replication: int | None = None, partitions: int = PARTITIONS
) -> list[str]:
    """Create the missing topics and return their names. Fast when all exist; several programs may call it at the same time.

    Without `replication`, the replication factor is the number of brokers, up to three: the cluster's own default is often
    one, and the log is the system of record. `min.insync.replicas` is one less.

    Raises RetryableError while the broker is unavailable, FatalError for a topic with another number of partitions: cases
    would hash to other partitions than their state.
    """
    admin = AdminClient({**client, "log_level": 2})
    try:
        cluster = admin.list_topics(timeout=10)
    except KafkaException as error:
        raise broker_unavailable(error) from error
    existing, replicas = cluster.topics, replication or min(MAX_REPLICAS, len(cluster.brokers))
    for topic in ALL:
        if topic.name in existing and len(existing[topic.name].partitions) != partitions:
            found = len(existing[topic.name].partitions)
            raise FatalError("HUB-E2106", topic=topic.name, found=found, wanted=partitions)
    missing = [topic for topic in ALL if topic.name not in existing]
    return _create(admin, missing, replicas, partitions) if missing else []


def _create(admin: AdminClient, topics: list[Topic], replicas: int, partitions: int) -> list[str]:
    in_sync = {"min.insync.replicas": str(max(1, replicas - 1))}
    new_topics = [NewTopic(t.name, partitions, replicas, config={**settings_of(t), **in_sync}) for t in topics]
    for future in admin.create_topics(new_topics, operation_timeout=20).values():
        try:
            future.result(30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise broker_unavailable(error) from error
    return [topic.name for topic in topics]


REQUEST_TIMEOUT_S = 20.0
CONNECT_TIMEOUT_S = 5.0
"""Timeout of the first request: a person waits for the result, often because the broker is down."""


class WrongSetting(NamedTuple):
    """A topic setting that differs from what the hub needs."""

    topic: str
    name: str
    found: str
    wanted: str


class TopicProblems(NamedTuple):
    """The missing topics and the wrong settings."""

    missing: Sequence[str]
    wrong: Sequence[WrongSetting]


def check_topics(client: Mapping[str, Any]) -> TopicProblems:
    """Check every topic; raises RetryableError while the broker is unavailable."""
    admin = AdminClient({**client, "log_level": 2})
    try:
        existing = admin.list_topics(timeout=CONNECT_TIMEOUT_S).topics
        resources = [ConfigResource(ConfigResource.Type.TOPIC, topic.name) for topic in ALL if topic.name in existing]
        settings = {
            resource.name: future.result(REQUEST_TIMEOUT_S)
            for resource, future in (admin.describe_configs(resources) if resources else {}).items()
        }
    except KafkaException as error:
        raise broker_unavailable(error) from error
    wrong = [
        WrongSetting(topic.name, name, str(settings[topic.name][name].value), wanted)
        for topic in ALL
        if topic.name in settings
        for name, wanted in settings_of(topic).items()
        if str(settings[topic.name][name].value) != wanted
    ]
    return TopicProblems([topic.name for topic in ALL if topic.name not in existing], wrong)


def correct_settings(client: Mapping[str, Any], wrong: Sequence[WrongSetting]) -> None:
    """Correct these settings and leave all others; raises RetryableError while the broker is unavailable."""
    changes: dict[str, list[ConfigEntry]] = {}
    for each in wrong:
        entry = ConfigEntry(each.name, each.wanted, incremental_operation=AlterConfigOpType.SET)
        changes.setdefault(each.topic, []).append(entry)
    resources = [
        ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
        for topic, entries in changes.items()
    ]
    admin = AdminClient({**client, "log_level": 2})
    try:
        for future in admin.incremental_alter_configs(resources).values() if resources else ():
            future.result(REQUEST_TIMEOUT_S)
    except KafkaException as error:
        raise broker_unavailable(error) from error
