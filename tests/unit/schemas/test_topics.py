"""The table of topics: what is kept for ever, what is compacted, and that a case's state lies beside its events."""

from __future__ import annotations

import re

import pytest

from schemas.topics import ALL, COMMANDS, EVENTS, STATE, VIEWS, Topic, settings_of


def test_facts_are_kept_for_ever_and_requests_for_thirty_days() -> None:
    kept = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
    assert settings_of(EVENTS) == {**kept, "message.timestamp.type": "LogAppendTime"}
    assert settings_of(COMMANDS)["retention.ms"] == str(30 * 24 * 3600 * 1000)


@pytest.mark.parametrize("topic", [STATE, *VIEWS.values()], ids=lambda topic: topic.name)
def test_state_and_views_keep_the_last_of_each_key(topic: Topic) -> None:
    settings = settings_of(topic)
    assert settings["cleanup.policy"] == "compact"
    assert "retention.ms" not in settings
    assert int(settings["min.compaction.lag.ms"]) >= 3_600_000


def test_records_are_dated_by_the_broker_so_that_no_programs_clock_has_them_refused_or_deleted() -> None:
    assert {settings_of(topic)["message.timestamp.type"] for topic in ALL} == {"LogAppendTime"}


def test_names_are_unique_and_say_whose_they_are() -> None:
    names = [topic.name for topic in ALL]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"hub\.[a-z]+(\.[a-z]+)?", name) for name in names)
    assert all(topic.key and topic.carries for topic in ALL)
