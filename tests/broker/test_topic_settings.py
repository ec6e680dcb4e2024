"""Topics that somebody has changed are noticed by `hub doctor`, and set right by `hub doctor --fix`."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient

from hub.log.topics import TopicProblems, WrongSetting, check_topics, correct_settings, ensure_topics
from hub.ops.embedded_kafka import EmbeddedKafka
from tests.broker.program import until
from tests.kafka_fixture import client_of

pytestmark = pytest.mark.broker


def test_what_was_changed_is_found_and_set_right_and_nothing_else(broker: EmbeddedKafka) -> None:
    client = client_of(broker.bootstrap)
    ensure_topics(client)
    assert check_topics(client) == TopicProblems([], [])
    changed = [
        WrongSetting("hub.events", "retention.ms", "-1", "60000"),
        WrongSetting("hub.state", "cleanup.policy", "compact", "delete"),
        WrongSetting("hub.commands", "max.message.bytes", "", "1000000"),
    ]
    correct_settings(client, changed)
    wrong = [
        WrongSetting("hub.events", "retention.ms", "60000", "-1"),
        WrongSetting("hub.state", "cleanup.policy", "delete", "compact"),
    ]
    until(lambda: set(wrong) <= set(check_topics(client).wrong), "the changes are seen")
    admin = AdminClient({**client})
    admin.delete_topics(["hub.view.item"])["hub.view.item"].result(20)
    until(lambda: check_topics(client).missing == ["hub.view.item"], "the topic is gone")
    correct_settings(client, [each for each in check_topics(client).wrong if each in wrong])
    ensure_topics(client)
    until(lambda: not set(wrong) & set(check_topics(client).wrong) and not check_topics(client).missing, "all is right")
