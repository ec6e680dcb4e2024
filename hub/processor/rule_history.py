"""Reads the history of rules from the log, and keeps what was read in a file, so that the next start reads only what is new.

What workers write travels by `hub.commands` to `hub.events`, as all that they say. A worker reads both: what is on its way counts
already, or one that has died after it wrote, and before the outbox had it, would be followed by one that decides otherwise.
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
from hub.rules.history import KEY, TYPES, RuleTimeline
from hub.runtime.files import write_whole
from schemas.envelope import Event
from schemas.topics import COMMANDS, EVENTS

AT_ONCE = 5000
"""Records in one reading."""

log = structlog.get_logger("hub.processor")


class RuleHistory:
    """The history of one log. What reads may block; any thread may call it."""

    def __init__(self, events: EventLog, cache: Path | None = None) -> None:
        self.history = RuleTimeline()
        self._log, self._cache = events, cache
        self._partition = partition_of(KEY, len(events.ends(EVENTS.name)))
        self._read_to = {EVENTS.name: 0, COMMANDS.name: 0}
        self._kept: list[dict[str, Any]] = []
        """What the cache holds of `hub.events`."""
        self._waiting: list[dict[str, Any]] = []
        """What this worker has announced and not seen there; in the cache for who only wants to know, as `hub validate`."""
        self._mark: tuple[int, str] | None = None
        """Where the last of these lies, and its bytes' digest: another log would have something else there."""
        self._tail: Reader | None = None
        self._one = threading.RLock()
        self._load()

    def refresh(self) -> None:
        """Read both topics to their ends. Raises RetryableError while the log is away."""
        with self._one:
            before = len(self._kept)
            self._read(EVENTS.name)
            self._read(COMMANDS.name)
            if len(self._kept) > before:
                there = {each["id"] for each in self._kept}
                self._waiting = [each for each in self._waiting if each["id"] not in there]
                self._store()

    def catch_up(self) -> None:
        """Read what workers have said since, to the end: what they say is on its way first."""
        for batch in read_to_end(
            self._log, COMMANDS.name, {self._partition: self._read_to[COMMANDS.name]}, limit=AT_ONCE
        ):
            self._take(COMMANDS.name, batch)

    def look(self) -> None:
        """Read what is there of it by now; quicker than `catch_up`, as it stays connected."""
        with self._one:
            if self._tail is None:
                begin = {self._partition: self._read_to[COMMANDS.name]}
                self._tail = self._log.reader(COMMANDS.name, begin, gather=0.5)
            try:
                while batch := self._tail.read(AT_ONCE, 0.0):
                    self._take(COMMANDS.name, batch)
            except (
                FatalError
            ):  # that topic was made anew, or no longer keeps what comes next: all that it has is read again
                self.close()
                self._read_to[COMMANDS.name] = self._log.starts(COMMANDS.name)[self._partition]
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Let go of the connection."""
        tail, self._tail = self._tail, None
        if tail is not None:
            tail.close()

    def add(self, events: Sequence[Event]) -> None:
        """Note what this worker has written itself."""
        with self._one:
            self.history.take(events, logged=False)
            self._waiting += [event.model_dump(exclude_none=True) for event in events]
            self._store()

    def _read(self, topic: str) -> None:
        start = max(self._read_to[topic], self._log.starts(topic)[self._partition])
        for batch in read_to_end(self._log, topic, {self._partition: start}, limit=AT_ONCE):
            self._take(topic, batch)

    def _take(self, topic: str, batch: Iterable[Record]) -> None:
        for record in batch:
            self._read_to[topic] = record.offset + 1
            if record.key != KEY:
                continue
            event = _event(topic, record.value or b"")
            if event is None:
                continue
            self.history.take([event], logged=topic == EVENTS.name)
            if topic == EVENTS.name:
                self._kept.append(event.model_dump(exclude_none=True))
                self._mark = (record.offset, _digest(record.value or b""))

    def _load(self) -> None:
        """Take up what the cache holds, unless it is of another log, or none."""
        try:
            told = orjson.loads(self._cache.read_bytes()) if self._cache is not None else {}
            events = [Event.model_validate(each) for each in told["events"]]
            read_to, (offset, digest) = int(told["read_to"]), told["mark"]
        except (OSError, ValueError, KeyError, TypeError):
            return
        if read_to > self._log.ends(EVENTS.name)[self._partition] or self._digest_at(int(offset)) != digest:
            return
        self._read_to[EVENTS.name], self._mark, self._kept = read_to, (int(offset), str(digest)), list(told["events"])
        self.history.take(events, logged=True)

    def _digest_at(self, offset: int) -> str | None:
        for batch in read_to_end(self._log, EVENTS.name, {self._partition: offset}, limit=1):
            return _digest(batch[0].value or b"") if batch[0].offset == offset else None
        return None

    def _store(self) -> None:
        if self._cache is None:
            return
        try:
            told = {
                "read_to": self._read_to[EVENTS.name],
                "mark": self._mark,
                "events": self._kept,
                "waiting": self._waiting,
            }
            write_whole(self._cache, orjson.dumps(told))
        except OSError as error:
            log.warning("rules.not-noted", reason=str(error))


def _event(topic: str, raw: bytes) -> Event | None:
    try:
        told = orjson.loads(raw)
        if topic == COMMANDS.name:
            told = told["event"] if told.get("record") == "event" else None
        event = Event.model_validate(told)
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return event if event.type in TYPES else None


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
