"""Topics of the hub, deleted and made anew, empty."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka.admin import AdminClient

from hub.log.topics import ensure_topics
from tests.acceptance.running import until


def make_anew(client: Mapping[str, str], *topics: str) -> None:
    """Topics that are there lose all they hold; offsets begin at 0 again."""
    admin = AdminClient(dict(client))
    for gone in admin.delete_topics(list(topics)).values():
        gone.result(30)
    until(lambda: not admin.list_topics(timeout=10).topics.keys() & set(topics), 60, "the topics are gone")
    ensure_topics(client)
