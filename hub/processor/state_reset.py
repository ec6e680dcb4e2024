"""Forgetting what the processor knows, so that it folds the log from its beginning: for state that is lost or wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from hub.errors import FatalError, RetryableError
from hub.log.kafka_log import away
from hub.log.topics import ensure_topics
from hub.processor import GROUP
from schemas.topics import STATE

PATIENCE = 30.0
"""Seconds for the group's dead members to leave it, and for the topic to go."""
_NOT_YET = {
    KafkaError.NON_EMPTY_GROUP,
    KafkaError.NOT_COORDINATOR,  # a broker that has just started
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
_NO_SUCH = {KafkaError.GROUP_ID_NOT_FOUND, KafkaError.UNKNOWN_TOPIC_OR_PART}


def forget(client: Mapping[str, Any], replication: int | None) -> None:
    """Delete the group's positions and make the state's topic anew.

    Raises FatalError HUB-E2114 while a worker lives: it would go on with what it has in memory.
    """
    admin = AdminClient({**client, "log_level": 3})
    until = time.monotonic() + PATIENCE
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
    """Whether it is so now; False while the group still has members, or nobody can tell."""
    try:
        future.result(30)
    except KafkaException as error:
        code = error.args[0].code()
        if code in _NOT_YET:
            return False
        if code not in _NO_SUCH:
            raise away(error) from error
    return True
