"""Secrets where none may be: S6, asked after every row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hub.log.event_log import read_to_end
from hub.log.kafka_log import KafkaLog
from schemas import topics


def leaks(folder: Path, client: Mapping[str, Any], secrets: Iterable[str]) -> list[str]:
    """Where one of these stands in clear: in a file below the folder, or in a record of any topic."""
    wanted = [secret.encode() for secret in secrets]
    found = [name for name, text in (*_files(folder), *_records(client)) if any(secret in text for secret in wanted)]
    return [f"a secret stands in {name}" for name in sorted(set(found))]


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in folder.rglob("*"):
        if file.is_file():
            yield file.relative_to(folder).as_posix(), file.read_bytes()


def _records(client: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    log = KafkaLog(client)
    for topic in topics.ALL:
        for batch in read_to_end(log, topic.name, log.starts(topic.name)):
            for record in batch:
                yield topic.name, (record.key or b"") + b" " + (record.value or b"")
