"""The embedded broker asks everybody who they are: another account of the machine reads, writes and deletes nothing (A1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from hub.home import Home
from hub.log.embedded_client import client_of_folder
from hub.ops.embedded_kafka import BrokerPlan, EmbeddedKafka
from tests.broker.test_embedded_kafka import keep, kept, make_topic
from tests.faults.other_account import reached
from tests.kafka_fixture import SECRET, client_of
from tests.open_broker import OpenBroker

pytestmark = pytest.mark.broker


def test_a_stranger_on_this_machine_reads_writes_and_deletes_nothing(broker: EmbeddedKafka) -> None:
    """As `nobody`, where the tests may become that; by no sign-in, by guesses, and at the controller's port, too."""
    make_topic(broker.bootstrap, "facts")
    keep(broker.bootstrap, "facts", [b"1"])
    assert reached(broker.plan.data, "facts") == []
    assert kept(broker.bootstrap, "facts") == [b"1"]


def refused(client: Mapping[str, Any]) -> bool:
    try:
        AdminClient({**client, "log_level": 0}).list_topics(timeout=2)
    except KafkaException:
        return True
    return False


def test_the_secret_is_in_one_file_and_nowhere_else(broker: EmbeddedKafka) -> None:
    for name in ("secret", "server.properties"):
        assert (broker.plan.data / name).stat().st_mode & 0o777 == 0o600
    process = Path(f"/proc/{broker.pid}")
    said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    files = {file.name: file.read_bytes() for file in broker.plan.data.rglob("*") if file.is_file()}
    password = files["server.properties"].partition(b' password="')[2].partition(b'"')[0]
    assert len(password) > 30
    for word, where in ((SECRET.encode(), "secret"), (password, "server.properties")):
        assert word not in said
        assert [name for name, text in files.items() if word in text] == [where]


def test_a_secret_that_was_deleted_is_another_at_the_next_start_and_the_old_one_is_worth_nothing(
    tmp_path: Path,
) -> None:
    broker = EmbeddedKafka(BrokerPlan(tmp_path / "kafka", port=0))
    try:
        before = client_of_folder(broker.plan.data, broker.start())
        assert AdminClient(dict(before)).list_topics(timeout=10)
        broker.stop()
        (broker.plan.data / "secret").unlink()
        now = client_of_folder(broker.plan.data, broker.start())
        assert AdminClient(dict(now)).list_topics(timeout=10)
        assert now["sasl.password"] != before["sasl.password"]
        assert refused({**before, "bootstrap.servers": broker.bootstrap})
    finally:
        broker.stop()


def test_the_folder_of_an_older_version_is_guarded_from_the_next_start_on_and_keeps_what_it_has(tmp_path: Path) -> None:
    old = OpenBroker(BrokerPlan(tmp_path / "kafka", port=0))
    old.start()
    admin = AdminClient({"bootstrap.servers": old.bootstrap})
    make_topic_with(admin)
    old.stop()
    (tmp_path / "kafka" / "secret").unlink(missing_ok=True)
    new = EmbeddedKafka(old.plan)
    try:
        bootstrap = new.start()
        assert "facts" in AdminClient(dict(client_of_folder(old.plan.data, bootstrap))).list_topics(timeout=10).topics
        with pytest.raises(KafkaException):
            AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=1)
    finally:
        new.stop()


def make_topic_with(admin: AdminClient) -> None:
    from confluent_kafka.cimpl import NewTopic

    for made in admin.create_topics([NewTopic("facts", 1, 1)]).values():
        made.result(timeout=20)


def test_a_home_signs_in_at_its_own_broker_and_shows_its_secret_to_no_other(
    broker: EmbeddedKafka, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "hub.yaml").write_text("name: h\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kafka").symlink_to(broker.plan.data)
    home = Home.load(tmp_path / "home", {"HUB_DATA": str(tmp_path / "data")})
    assert home.kafka_client(broker.bootstrap) == {**client_of(broker.bootstrap)}
    assert "sasl.password" not in home.kafka_client("127.0.0.1:1")
