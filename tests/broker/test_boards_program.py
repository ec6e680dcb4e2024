"""The projector on a real broker: folds, serves on its socket, survives SIGKILL, ends on SIGTERM; then the rebuild."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from hub.log.kafka_log import KafkaLog
from hub.log.topics import ensure_topics
from hub.ops.embedded_kafka import EmbeddedKafka
from tests.board_events import Deal, Relay, eventually
from tests.kafka_fixture import client_of, let_in

pytestmark = pytest.mark.broker
HOME = """
name: acme
language: zh-CN
timezone: Asia/Shanghai
connectors: {own: {use: builtin}}
"""


class UnixConnection(HTTPConnection):
    """HTTP over the program's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(str(self.path))


def get(path: Path, address: str) -> Any:
    connection = UnixConnection(path)
    try:
        connection.request("GET", address)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def total(path: Path) -> int:
    """How many tasks it tells of; -1 while it is away."""
    try:
        return int(get(path, "/api/tasks?limit=1")["total"])
    except OSError:
        return -1


@contextmanager
def running(home: Path, environment: dict[str, str], path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "hub.programs.projector", "--home", str(home), "--socket", str(path)]
    program = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield program
    finally:
        program.kill()
        program.wait()
        assert program.stderr is not None
        program.stderr.close()


def test_the_program(broker: EmbeddedKafka, tmp_path: Path) -> None:
    client = client_of(broker.bootstrap)
    ensure_topics(client)
    let_in(tmp_path / ".hub", broker.bootstrap)
    (tmp_path / "hub.yaml").write_text(HOME, "utf-8")
    relay = Relay(KafkaLog(client))
    environment = {**os.environ, "HUB_KAFKA": str(broker.bootstrap), "HUB_LANG": "en"}
    path = tmp_path / "run" / "boards.sock"
    relay.send(Deal(1).story())
    with running(tmp_path, environment, path) as program:
        eventually(lambda: total(path) == 3, 60)
        assert (tmp_path / ".hub" / "run" / "projector.ready").read_text("ascii") == str(program.pid)
        began = time.monotonic()
        relay.send(Deal(2).story())
        eventually(lambda: total(path) == 6)
        assert time.monotonic() - began < 5
        program.send_signal(signal.SIGKILL)
        program.wait()
    relay.send(Deal(3).story())
    with running(tmp_path, environment, path) as program:
        eventually(lambda: total(path) == 9, 60)
        program.send_signal(signal.SIGTERM)
        assert program.wait(20) == 0
    told = rebuilt(tmp_path, environment, "--verify")
    assert told.returncode == 0, told.stderr
    said = [json.loads(line) for line in told.stdout.splitlines()]
    boards = {line["board"]["board"]: line["board"] for line in said if "board" in line}
    assert {name: board["equal"] for name, board in boards.items()} == dict.fromkeys(
        ("tasks", "deals", "inbox", "entities", "trail"), True
    )
    assert boards["tasks"]["rows"] == 18  # a card for each task, and for each request that became one
    store = tmp_path / ".hub" / "boards.sqlite"
    store.write_bytes(b"no database" * 1000)
    with running(tmp_path, environment, path) as program:
        _, complaint = program.communicate(timeout=60)
        assert program.returncode == 1
    assert "HUB-E5008" in complaint
    assert [file.read_bytes() for file in store.parent.glob("boards.sqlite.damaged-*")] == [b"no database" * 1000]
    with running(tmp_path, environment, path):
        eventually(lambda: total(path) == 9, 60)
    relay.last = {partition: last + 1 for partition, last in relay.last.items()}  # an event is lost on the way
    relay.send([Deal(3).step(0, "completed", 9)])
    with running(tmp_path, environment, path) as program:
        _, complaint = program.communicate(timeout=60)
        assert program.returncode == 1
    assert "HUB-E5101" in complaint
    assert "Traceback" not in complaint


def rebuilt(home: Path, environment: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hub.projector.rebuilding", "--home", str(home), "--all", *more]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
