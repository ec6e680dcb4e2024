"""What another account of this machine gets at: `python -m tests.faults.other_account DATA TOPIC`, DATA being a broker's folder.

Run by root it becomes `nobody` once its modules are read; run by anybody else it only has no secret. It prints what it reached.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

NOBODY = 65534
FILES = ("secret", "server.properties", "port", "log", "logs")
GUESSES = ("", "hub", "a guess")
Client = Mapping[str, Any]


def reached(data: Path, topic: str) -> list[str]:
    """Try it from another process; what it reached, which should be nothing. Ports are told: it could find them."""
    settings = (data / "server.properties").read_text("ascii")
    ports = [
        settings.partition(f"{name}://127.0.0.1:")[2].split(",")[0].split()[0] for name in ("CLIENT", "CONTROLLER")
    ]
    command = [sys.executable, "-m", "tests.faults.other_account", str(data), topic, *ports]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    return [*done.stdout.splitlines(), *done.stderr.splitlines()]


def main(data: Path, topic: str, ports: list[str]) -> None:
    """Try everything."""
    _import_all()
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        for name in _files(data):
            print(f"file {name}")
    for port in ports:
        for client in _clients(port):
            if _lets_in(client):
                print(f"port {port} by {client}")
    anyone = {"bootstrap.servers": f"127.0.0.1:{ports[0]}", "log_level": 0}
    for what, can in (("wrote", _write), ("read", _read), ("deleted", _delete)):
        if can(anyone, topic):
            print(what)


def _import_all() -> None:
    """Have the client import what it imports late, while the interpreter's files can be read: another account may not."""
    nowhere: Client = {"bootstrap.servers": "127.0.0.1:9", "log_level": 0}
    AdminClient(dict(nowhere))
    Producer(dict(nowhere))
    Consumer({**nowhere, "group.id": "stranger"}).close()


def _files(data: Path) -> Iterator[str]:
    for name in FILES:
        try:
            os.listdir(data / name) if (data / name).is_dir() else (data / name).read_bytes()
        except PermissionError:
            continue
        yield name


def _clients(port: str) -> Iterator[Client]:
    plain = {"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0}
    yield plain
    for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        for user in ("hub", "broker"):
            for word in GUESSES:
                guess = {"sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": word}
                yield {**plain, "security.protocol": "SASL_PLAINTEXT", **guess}


def _lets_in(client: Client) -> bool:
    try:
        AdminClient(dict(client)).list_topics(timeout=0.5)
    except (KafkaException, ValueError):
        return False
    return True


def _write(client: Client, topic: str) -> bool:
    told: list[bool] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        told.append(error is None)  # KafkaError cannot be compared with None

    writer = Producer({**client, "message.timeout.ms": 1000})
    writer.produce(topic, b"forged", on_delivery=delivered)
    writer.flush(5)
    return told == [True]


def _read(client: Client, topic: str) -> bool:
    reader = Consumer({**client, "group.id": "stranger"})
    reader.assign([TopicPartition(topic, 0, 0)])
    return any(message.error() is None for message in reader.consume(1, 1.0))


def _delete(client: Client, topic: str) -> bool:
    for gone in AdminClient(dict(client)).delete_topics([topic], request_timeout=1).values():
        try:
            gone.result(3)
        except KafkaException:
            return False
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
