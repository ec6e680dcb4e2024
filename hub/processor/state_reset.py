"""Deletes the processor's offsets and state, so that it folds the log from its beginning: for state that is lost or wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from hub.errors import FatalError, RetryableError
from hub.log.kafka_log import broker_unavailable
from hub.log.topics import ensure_topics
from hub.processor import GROUP
from schemas.topics import STATE

DELETION_TIMEOUT_S = 30.0
"""Seconds for the group's dead members to time out, and for the topic to be deleted."""
_NOT_YET = {
    KafkaError.NON_EMPTY_GROUP,
    KafkaError.NOT_COORDINATOR,  # a broker that has just started
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
_NO_SUCH = {KafkaError.GROUP_ID_NOT_FOUND, KafkaError.UNKNOWN_TOPIC_OR_PART}


def forget(client: Mapping[str, Any], replication: int | None) -> None:
    """Delete the group's offsets and recreate the state topic.

    Raises FatalError HUB-E2114 while a worker is alive: it would continue with its state in memory.
    """
    admin = AdminClient({**client, "log_level": 3})
    until = time.monotonic() + DELETION_TIMEOUT_S
    while not _done(admin.delete_consumer_groups([GROUP])[GROUP]):
        if time.monotonic() > until:
            raise FatalError("HUB-E2114")
        time.sleep(0.5)
    _done(admin.delete_topics([STATE.name])[STATE.name])
    while STATE.name in admin.list_topics(timeout=10).topics:
        if time.monotonic() > until:
            raise RetryableError("HUB-E2104", reason=f"{STATE.name}: still being deleted")
        time.sleep(0.1)
    ensure_topics(client, replication=replication)


def _done(future: Any) -> bool:
    """Whether the deletion is done; False while the group still has members, or no coordinator can answer."""
    try:
        future.result(30)
    except KafkaException as error:
        code = error.args[0].code()
        if code in _NOT_YET:
            return False
        if code not in _NO_SUCH:
            raise broker_unavailable(error) from error
    return True
