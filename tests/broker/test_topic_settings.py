"""Topics that somebody has changed are noticed by `hub doctor`, and set right by `hub doctor --fix`."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient

from hub.log.topics import Topics, Wrong, ensure_topics, examined, set_right
from hub.ops.embedded_kafka import EmbeddedKafka
from tests.broker.program import until
from tests.kafka_fixture import client_of

pytestmark = pytest.mark.broker


def test_what_was_changed_is_found_and_set_right_and_nothing_else(broker: EmbeddedKafka) -> None:
    client = client_of(broker.bootstrap)
    ensure_topics(client)
    assert examined(client) == Topics([], [])
    changed = [
        Wrong("hub.events", "retention.ms", "-1", "60000"),
        Wrong("hub.state", "cleanup.policy", "compact", "delete"),
        Wrong("hub.commands", "max.message.bytes", "", "1000000"),
    ]
    set_right(client, changed)
    wrong = [
        Wrong("hub.events", "retention.ms", "60000", "-1"),
        Wrong("hub.state", "cleanup.policy", "delete", "compact"),
    ]
    until(lambda: set(wrong) <= set(examined(client).wrong), "the changes are seen")
    admin = AdminClient({**client})
    admin.delete_topics(["hub.view.item"])["hub.view.item"].result(20)
    until(lambda: examined(client).missing == ["hub.view.item"], "the topic is gone")
    set_right(client, [each for each in examined(client).wrong if each in wrong])
    ensure_topics(client)
    until(lambda: not set(wrong) & set(examined(client).wrong) and not examined(client).missing, "all is right")
