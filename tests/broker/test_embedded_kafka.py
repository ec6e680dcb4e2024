"""The embedded broker, for real: starts, deaths of every kind, taken ports, full disks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from hub.errors import FatalError
from hub.ops.embedded_kafka import BrokerPlan, EmbeddedKafka
from tests.kafka_fixture import client_of, embedded
from tests.process_state import is_running

pytestmark = pytest.mark.broker

MIB = 1024 * 1024
FOREGROUND = [sys.executable, "-W", "error", "-m", "hub.ops.embedded_kafka"]


def keep(bootstrap: str, topic: str, values: list[bytes]) -> None:
    """Write `values`; return once the broker has acknowledged every one."""
    lost: list[object] = []
    producer = Producer({**client_of(bootstrap), "acks": "all", "message.timeout.ms": 20_000})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: lost.append(error) if error else None)
    assert producer.flush(30) == 0
    assert lost == []


def kept(bootstrap: str, topic: str) -> list[bytes]:
    """Everything that partition 0 of a topic holds, in order."""
    consumer = Consumer({**client_of(bootstrap), "group.id": "test", "enable.auto.commit": False})
    try:
        start, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=20)
        consumer.assign([TopicPartition(topic, 0, start)])
        return [_value(record) for record in consumer.consume(end - start, timeout=20)]
    finally:
        consumer.close()


def _value(record: object) -> bytes:
    value: bytes = record.value()  # type: ignore[attr-defined]  # confluent_kafka's Message has no stubs that mypy trusts
    return value


def make_topic(bootstrap: str, topic: str) -> None:
    admin = AdminClient(client_of(bootstrap))
    for made in admin.create_topics([NewTopic(topic, 1, 1)]).values():
        made.result(timeout=20)


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.02)


def number_in(file: Path) -> int:
    return int(file.read_text())


def listener() -> socket.socket:
    """A program that is not Kafka, on a free port."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return taken


@pytest.fixture
def foreground(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `python -m hub.ops.embedded_kafka` on `tmp_path/data`; whatever still runs at the end is killed."""
    begun: list[subprocess.Popen[str]] = []
    embedded(tmp_path / "data")

    def begin(*prefix: str) -> subprocess.Popen[str]:
        command = [*prefix, *FOREGROUND, "--data", str(tmp_path / "data"), "--port", "0"]
        begun.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return begun[-1]

    yield begin
    for program in begun:
        program.kill()
        program.communicate()


def bootstrap_of(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    return program.stdout.readline().strip()


def test_answers_a_client(kafka: str) -> None:
    assert list(AdminClient(client_of(kafka)).list_topics(timeout=10).brokers) == [1]


def test_makes_no_topic_that_nobody_asked_for(kafka: str) -> None:
    admin = AdminClient(client_of(kafka))
    admin.list_topics("never-made", timeout=10)
    assert "never-made" not in admin.list_topics(timeout=10).topics


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker that runs, for tests that only look at it. A secret of other programs is about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRM_PASSWORD", "hunter2")
        own = embedded(tmp_path_factory.mktemp("standing") / "data")
        own.start()
        yield own
        own.stop()


def test_listens_on_the_loopback_only(standing: EmbeddedKafka) -> None:
    assert listening_addresses(standing.pid) == {"0000000000000000FFFF00000100007F"}  # ::ffff:127.0.0.1


def listening_addresses(pid: int) -> set[str]:
    mine = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()}
    tables = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in mine}


def test_its_data_are_for_its_owner_only(standing: EmbeddedKafka) -> None:
    assert standing.plan.data.stat().st_mode & 0o777 == 0o700


def test_its_process_sees_no_secret(standing: EmbeddedKafka) -> None:
    assert os.environ["CRM_PASSWORD"] == "hunter2"
    assert b"hunter2" not in Path(f"/proc/{standing.pid}/environ").read_bytes()


def test_a_start_while_it_runs_changes_nothing(standing: EmbeddedKafka) -> None:
    pid = standing.pid
    assert standing.start() == standing.bootstrap
    assert standing.pid == pid


def test_the_second_start_needs_no_network(broker: EmbeddedKafka) -> None:
    """In a network namespace of its own there is nothing but a loopback."""
    broker.stop()
    script = """
import fcntl, socket, struct, sys
from pathlib import Path
from hub.ops.embedded_kafka import BrokerPlan, EmbeddedKafka
UP, SET_FLAGS = 1, 0x8914
fcntl.ioctl(socket.socket(), SET_FLAGS, struct.pack("16sh14x", b"lo", UP))
broker = EmbeddedKafka(BrokerPlan(Path(sys.argv[1]), port=0))
print(broker.start())
broker.stop()
"""
    command = ["unshare", "--map-root-user", "--net", sys.executable, "-c", script, str(broker.plan.data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"needs unshare of util-linux and a right to use it: {done.stderr}"
    assert done.stdout.startswith("127.0.0.1:")


def test_a_stop_is_clean(broker: EmbeddedKafka) -> None:
    make_topic(broker.bootstrap, "facts")
    keep(broker.bootstrap, "facts", [b"1"])
    broker.stop()
    assert broker.wait() == 143
    assert broker.failure() is None
    assert (broker.plan.data / "log" / ".kafka_cleanshutdown").exists()
    broker.start()
    said = (broker.plan.data / "logs" / "broker.log").read_text()
    assert "since clean shutdown file was found" in said
    assert "unclean" not in said.lower()


def test_kill_9_of_java_loses_nothing(broker: EmbeddedKafka) -> None:
    before = broker.bootstrap
    make_topic(before, "facts")
    values = [b"%d" % number for number in range(5000)]
    keep(before, "facts", values)
    os.kill(broker.pid, signal.SIGKILL)
    assert broker.wait() == -signal.SIGKILL
    assert not broker.running
    assert str(broker.failure()).startswith("HUB-E2008 Kafka ended unexpectedly: SIGKILL")
    assert broker.start() == before, "its clients look for it where it was"
    assert kept(before, "facts") == values
    keep(before, "facts", [b"one more"])
    assert kept(before, "facts") == [*values, b"one more"]


def test_kill_9_of_its_python_takes_java_along(
    foreground: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    program = foreground()
    bootstrap = bootstrap_of(program)
    make_topic(bootstrap, "facts")
    keep(bootstrap, "facts", [b"1", b"2"])
    java = number_in(tmp_path / "data" / "pid")
    program.kill()
    eventually(lambda: not is_running(java))
    assert kept(bootstrap_of(foreground()), "facts") == [b"1", b"2"]


def test_a_java_that_outlived_its_python_is_stopped_first(
    foreground: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    program = foreground()
    bootstrap = bootstrap_of(program)
    make_topic(bootstrap, "facts")
    keep(bootstrap, "facts", [b"1"])
    java = number_in(tmp_path / "data" / "pid")
    os.kill(java, signal.SIGSTOP)  # so that it can't heed the signal of its parent's death
    program.kill()
    program.wait()
    said: list[str] = []
    successor = EmbeddedKafka(BrokerPlan(tmp_path / "data", port=0), lambda line, _: said.append(line))
    try:
        assert kept(successor.start(), "facts") == [b"1"]
        assert not is_running(java)
        assert any(str(java) in line for line in said)
    finally:
        successor.stop()


def test_the_foreground_program_stops_on_sigterm(
    foreground: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    program = foreground()
    bootstrap = bootstrap_of(program)
    assert bootstrap == f"127.0.0.1:{number_in(tmp_path / 'data' / 'port')}"
    java = number_in(tmp_path / "data" / "pid")
    program.terminate()
    stdout, stderr = program.communicate(timeout=30)
    assert program.returncode == 143
    assert stdout == ""
    assert "Traceback" not in stderr
    assert not is_running(java)


def test_the_foreground_program_ends_with_its_broker(
    foreground: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    program = foreground()
    bootstrap_of(program)
    os.kill(number_in(tmp_path / "data" / "pid"), signal.SIGKILL)
    _, stderr = program.communicate(timeout=30)
    assert program.returncode == 128 + signal.SIGKILL
    assert "HUB-E2008" in stderr


def test_with_parent_it_follows_its_starter(tmp_path: Path) -> None:
    """The starter is killed with -9: Python and Java both go, and the folder is free again."""
    script = "import subprocess, sys; subprocess.run(sys.argv[1:], check=False)"
    command = [*FOREGROUND, "--data", str(tmp_path / "data"), "--port", "0", "--with-parent"]
    starter = subprocess.Popen([sys.executable, "-c", script, *command], stdout=subprocess.PIPE, text=True)
    bootstrap_of(starter)
    java, python = number_in(tmp_path / "data" / "pid"), number_in(tmp_path / "data" / "lock")
    starter.kill()
    starter.communicate()
    try:
        eventually(lambda: not is_running(java) and not is_running(python))
    finally:
        if is_running(python):
            os.kill(python, signal.SIGKILL)


def test_a_taken_port_is_left_to_its_owner_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    with listener() as taken:
        port = taken.getsockname()[1]
        broker = EmbeddedKafka(BrokerPlan(tmp_path / "data", port=port), lambda line, _: said.append(line))
        try:
            chosen = int(broker.start().rpartition(":")[2])
        finally:
            noted = number_in(tmp_path / "data" / "port")
            broker.stop()
    assert chosen == noted != port
    assert any("HUB-E2004" in line and str(port) in line and str(os.getpid()) in line for line in said)


def test_the_port_of_a_broker_that_died_is_not_given_to_another_hub(broker: EmbeddedKafka, tmp_path: Path) -> None:
    """Else the clients of the dead one would write to the other's log."""
    port = int(broker.bootstrap.rpartition(":")[2])
    os.kill(broker.pid, signal.SIGKILL)
    broker.wait()
    other = EmbeddedKafka(BrokerPlan(tmp_path / "other", port=port))
    try:
        assert other.start() != f"127.0.0.1:{port}"
        assert broker.start() == f"127.0.0.1:{port}"
    finally:
        other.stop()


def test_a_broker_that_died_comes_back_where_it_was_or_not_at_all(broker: EmbeddedKafka) -> None:
    port = int(broker.bootstrap.rpartition(":")[2])
    os.kill(broker.pid, signal.SIGKILL)
    broker.wait()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(FatalError, match=f"HUB-E2003 port {port}"):
        broker.start()
    assert broker.start() == f"127.0.0.1:{port}"


def test_a_required_port_that_is_taken_is_an_error(tmp_path: Path, kafka: str) -> None:
    port = int(kafka.rpartition(":")[2])
    broker = EmbeddedKafka(BrokerPlan(tmp_path / "data", port=port, required=True))
    with pytest.raises(FatalError, match=rf"HUB-E2003 port {port} .*Kafka: java \d+"):
        broker.start()
    assert not broker.running


def test_a_folder_in_use_is_refused(standing: EmbeddedKafka) -> None:
    with pytest.raises(FatalError, match=rf"HUB-E2005.*process {os.getpid()}"):
        EmbeddedKafka(standing.plan).start()
    assert standing.running


def test_a_broker_that_cannot_start_says_why(broker: EmbeddedKafka) -> None:
    broker.stop()
    meta = broker.plan.data / "log" / "meta.properties"
    sound = meta.read_text()
    meta.write_text(sound.replace("node.id=1", "node.id=7"))
    with pytest.raises(FatalError, match=r"HUB-E2008.*node.id.*7"):
        broker.start()
    meta.write_text(sound)
    broker.start()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a disk of so many MiB."""
    disk = tmp_path / "disk"

    def mount(size: int) -> Path:
        disk.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(disk)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"this test mounts a small disk and needs root for it: {done.stderr}")
        return disk

    yield mount
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_too_full_to_start(small_disk: Callable[[int], Path]) -> None:
    with pytest.raises(FatalError, match="HUB-E2006"):
        EmbeddedKafka(BrokerPlan(small_disk(32) / "data", port=0)).start()


def test_a_disk_with_no_room_at_all(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(1)
    fill(disk / "filler")
    with pytest.raises(FatalError, match="HUB-E2006"):
        EmbeddedKafka(BrokerPlan(disk / "data", port=0)).start()


def test_a_disk_that_runs_full(small_disk: Callable[[int], Path]) -> None:
    """The broker stops, says so, and has every acknowledged record once there is room again."""
    disk = small_disk(320)
    broker = embedded(disk / "data")
    try:
        make_topic(broker.start(), "facts")
        keep(broker.bootstrap, "facts", [b"1", b"2"])
        fill(disk / "filler")
        acknowledged = write_until_it_dies(broker)
        failure = broker.failure()
        assert failure is not None
        assert failure.code == "HUB-E2007"
        with pytest.raises(FatalError, match="HUB-E2006"):
            broker.start()
        (disk / "filler").unlink()
        records = kept(broker.start(), "facts")
        assert records[: 2 + len(acknowledged)] == [b"1", b"2", *acknowledged]
    finally:
        broker.stop()


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(MIB // 4))
        except OSError:
            return


def write_until_it_dies(broker: EmbeddedKafka) -> list[bytes]:
    """Write one record after another; those that were acknowledged."""
    acknowledged: list[bytes] = []
    producer = Producer({**client_of(broker.bootstrap), "acks": "all", "linger.ms": 0, "retries": 0})
    deadline = time.monotonic() + 60
    number = 0
    while broker.running:
        assert time.monotonic() < deadline, "the broker lives on a full disk"
        value = b"%06d" % number + bytes(64 * 1024)
        producer.produce(
            "facts", value, on_delivery=lambda error, record: acknowledged.append(_value(record)) if not error else None
        )
        producer.flush(1)
        number += 1
    producer.purge()
    producer.flush(5)
    return acknowledged
