"""Reads the history of rule announcements from the log, and caches it in a file, so that the next start reads only newer records.

Workers' announcements travel by `hub.commands` to `hub.events`, as all their outputs do. A worker reads both topics: an
announcement counts as soon as it is in `hub.commands`. Otherwise the successor of a worker that died after writing one, before it
reached the outbox, would decide by other rules.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson
import structlog
from pydantic import ValidationError

from hub.errors import FatalError
from hub.log.event_log import EventLog, Reader, Record, read_to_end
from hub.log.partitioner import partition_of
from hub.rules.history import RULE_EVENT_TYPES, RULES_KEY, RuleTimeline
from hub.runtime.files import write_atomically
from schemas.envelope import Event
from schemas.topics import COMMANDS, EVENTS

READ_BATCH = 5000
"""Records in one read."""

log = structlog.get_logger("hub.processor")


class RuleHistory:
    """The rule history of one log. Methods that read may block; any thread may call them."""

    def __init__(self, events: EventLog, cache: Path | None = None) -> None:
        self.history = RuleTimeline()
        self._log, self._cache = events, cache
        self._partition = partition_of(RULES_KEY, len(events.ends(EVENTS.name)))
        self._read_to = {EVENTS.name: 0, COMMANDS.name: 0}
        self._logged: list[dict[str, Any]] = []
        """The announcements in `hub.events`, as cached."""
        self._unlogged: list[dict[str, Any]] = []
        """This worker's announcements that are not in `hub.events` yet; cached for read-only commands such as `hub validate`."""
        self._mark: tuple[int, str] | None = None
        """The offset of the last one in `hub.events` and the digest of its bytes: another log has a different record there."""
        self._tail: Reader | None = None
        self._lock = threading.RLock()
        self._load()

    def refresh(self) -> None:
        """Read both topics to their ends. Raises RetryableError while the log is away."""
        with self._lock:
            before = len(self._logged)
            self._read(EVENTS.name)
            self._read(COMMANDS.name)
            if len(self._logged) > before:
                logged = {entry["id"] for entry in self._logged}
                self._unlogged = [entry for entry in self._unlogged if entry["id"] not in logged]
                self._store()

    def catch_up(self) -> None:
        """Read newer announcements to the end of `hub.commands`, where they are written first."""
        for batch in read_to_end(
            self._log, COMMANDS.name, {self._partition: self._read_to[COMMANDS.name]}, limit=READ_BATCH
        ):
            self._apply(COMMANDS.name, batch)

    def look(self) -> None:
        """Read the newer announcements available now; faster than `catch_up`, since it stays connected."""
        with self._lock:
            if self._tail is None:
                begin = {self._partition: self._read_to[COMMANDS.name]}
                self._tail = self._log.reader(COMMANDS.name, begin, gather=0.5)
            try:
                while batch := self._tail.read(READ_BATCH, 0.0):
                    self._apply(COMMANDS.name, batch)
            except (
                FatalError
            ):  # the topic was recreated, or the next record is no longer retained: read all of it again
                self.close()
                self._read_to[COMMANDS.name] = self._log.starts(COMMANDS.name)[self._partition]
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close the connection."""
        tail, self._tail = self._tail, None
        if tail is not None:
            tail.close()

    def add(self, events: Sequence[Event]) -> None:
        """Add this worker's own announcements."""
        with self._lock:
            self.history.take(events, logged=False)
            self._unlogged += [event.model_dump(exclude_none=True) for event in events]
            self._store()

    def _read(self, topic: str) -> None:
        start = max(self._read_to[topic], self._log.starts(topic)[self._partition])
        for batch in read_to_end(self._log, topic, {self._partition: start}, limit=READ_BATCH):
            self._apply(topic, batch)

    def _apply(self, topic: str, batch: Iterable[Record]) -> None:
        for record in batch:
            self._read_to[topic] = record.offset + 1
            if record.key != RULES_KEY:
                continue
            event = _event(topic, record.value or b"")
            if event is None:
                continue
            self.history.take([event], logged=topic == EVENTS.name)
            if topic == EVENTS.name:
                self._logged.append(event.model_dump(exclude_none=True))
                self._mark = (record.offset, _digest(record.value or b""))

    def _load(self) -> None:
        """Load the cache, unless it is missing or belongs to another log."""
        try:
            content = orjson.loads(self._cache.read_bytes()) if self._cache is not None else {}
            events = [Event.model_validate(entry) for entry in content["events"]]
            read_to, (offset, digest) = int(content["read_to"]), content["mark"]
        except (OSError, ValueError, KeyError, TypeError):
            return
        if read_to > self._log.ends(EVENTS.name)[self._partition] or self._digest_at(int(offset)) != digest:
            return
        self._read_to[EVENTS.name], self._mark, self._logged = (
            read_to,
            (int(offset), str(digest)),
            list(content["events"]),
        )
        self.history.take(events, logged=True)

    def _digest_at(self, offset: int) -> str | None:
        for batch in read_to_end(self._log, EVENTS.name, {self._partition: offset}, limit=1):
            return _digest(batch[0].value or b"") if batch[0].offset == offset else None
        return None

    def _store(self) -> None:
        if self._cache is None:
            return
        try:
            content = {
                "read_to": self._read_to[EVENTS.name],
                "mark": self._mark,
                "events": self._logged,
                "waiting": self._unlogged,
            }
            write_atomically(self._cache, orjson.dumps(content))
        except OSError as error:
            log.warning("rules.not-noted", reason=str(error))


def _event(topic: str, raw: bytes) -> Event | None:
    try:
        content = orjson.loads(raw)
        if topic == COMMANDS.name:
            content = content["event"] if content.get("record") == "event" else None
        event = Event.model_validate(content)
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return event if event.type in RULE_EVENT_TYPES else None


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
