"""How far the log's readers are: what the processor has committed, and what lies behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from hub.errors import RetryableError
from schemas.envelope import parse_time
from schemas.topics import EVENTS, PARTITIONS

if TYPE_CHECKING:
    from confluent_kafka import Consumer
    from confluent_kafka.admin import AdminClient

At = tuple[str, int, int]
"""Topic, partition, offset."""
MANY = 200
"""Records that are read at most to say what waits."""
FETCH = 65_536
"""Bytes of a partition that are fetched at most, one record at the least."""


@dataclass(frozen=True)
class Front:
    """The record that waits longest in a partition: since when, and of what types it and those right behind it are."""

    since: datetime
    types: Mapping[str, int]


class LogLook(Protocol):
    """Looks at a log. Every method raises RetryableError while it is away."""

    def ends(self, topic: str) -> Mapping[int, int]:
        """Partition → the offset that the next record will have."""

    def folded(self) -> Mapping[int, int]:
        """Partition of `hub.events` → the next record that the processor will fold."""

    def fronts(self, wanted: Iterable[At]) -> Mapping[At, Front]:
        """What waits at each of these places; what does not come within a moment is left out."""

    def close(self) -> None:
        """Let go of the connection."""


def front_of(records: list[tuple[float, bytes]]) -> Front:
    """From records, (appended at, bytes), oldest first. An event's own recorded time counts, else when it was appended."""
    since, types = datetime.fromtimestamp(records[0][0], UTC), dict[str, int]()
    for number, (_, raw) in enumerate(records):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            event = orjson.loads(raw)
            types[str(event["type"])] = types.get(str(event["type"]), 0) + 1
            if number == 0 and "recordedtime" in event:
                since = parse_time(event["recordedtime"])
    return Front(since, types)


@dataclass
class KafkaLook:
    """Keeps its connections between looks; joins no group and commits nothing. For one thread."""

    client: Mapping[str, Any]
    timeout: float = 5.0
    _consumer: Consumer | None = None
    _admin: AdminClient | None = None
    _known: dict[At, Front] = field(default_factory=dict)

    def ends(self, topic: str) -> dict[int, int]:
        from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

        return self._offsets(topic, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def _offsets(self, topic: str, spec: Any) -> dict[int, int]:
        from confluent_kafka import TopicPartition

        wanted = {TopicPartition(topic, partition): spec for partition in range(PARTITIONS)}
        with self._anew_after_errors():
            asked = self._asking().list_offsets(wanted, request_timeout=self.timeout)
            return {where.partition: future.result(self.timeout + 1).offset for where, future in asked.items()}

    def folded(self) -> dict[int, int]:
        from confluent_kafka import TopicPartition
        from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

        partitions = [TopicPartition(EVENTS.name, partition) for partition in range(PARTITIONS)]
        with self._anew_after_errors():
            committed = {at.partition: at.offset for at in self._reading().committed(partitions, timeout=self.timeout)}
        if all(offset >= 0 for offset in committed.values()):
            return committed
        starts = self._offsets(EVENTS.name, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        return {partition: offset if offset >= 0 else starts[partition] for partition, offset in committed.items()}

    def fronts(self, wanted: Iterable[At]) -> dict[At, Front]:
        asked = set(wanted)
        self._known = {at: front for at, front in self._known.items() if at in asked}
        missing = asked - self._known.keys()
        while missing:
            # One place of a partition at a time: an assignment has one offset for each.
            now = {(topic, partition): offset for topic, partition, offset in sorted(missing)}
            found = self._read(now)
            self._known |= found
            missing -= {(*where, offset) for where, offset in now.items()}
        return dict(self._known)

    def _read(self, wanted: Mapping[tuple[str, int], int]) -> dict[At, Front]:
        from confluent_kafka import TopicPartition

        consumer = self._reading()
        read: dict[tuple[str, int], list[tuple[float, bytes]]] = {}
        with self._anew_after_errors():
            consumer.assign([TopicPartition(*where, offset) for where, offset in wanted.items()])
            for _ in range(int(self.timeout / 0.1)):
                if len(read) == len(wanted):
                    break
                for message in consumer.consume(MANY, 0.1):
                    if message.error() is None:
                        where = (str(message.topic()), int(message.partition() or 0))
                        read.setdefault(where, []).append((message.timestamp()[1] / 1000, message.value() or b""))
            consumer.unassign()
        return {(*where, wanted[where]): front_of(records) for where, records in read.items()}

    @contextlib.contextmanager
    def _anew_after_errors(self) -> Iterator[None]:
        """Connections that met an error are not used again: an admin client keeps the leader's old epoch for good, as seen with
        a broker that stood still and was elected anew ("Leader epoch is older than broker epoch")."""
        from confluent_kafka import KafkaException

        from hub.log.kafka_log import away

        try:
            yield
        except KafkaException as error:
            self.close()
            raise away(error) from error
        except TimeoutError as error:
            self.close()
            raise RetryableError("HUB-E2104", reason=f"> {self.timeout:.0f} s") from error

    def _asking(self) -> AdminClient:
        from confluent_kafka.admin import AdminClient

        if self._admin is None:
            self._admin = AdminClient({**self.client, "reconnect.backoff.max.ms": 1000, "log_level": 0})
        return self._admin

    def _reading(self) -> Consumer:
        from confluent_kafka import Consumer

        from hub.processor import GROUP

        if self._consumer is None:
            self._consumer = Consumer({**self.client, "group.id": GROUP, **READING})
        return self._consumer

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
        self._consumer, self._admin = None, None


READING = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "reconnect.backoff.max.ms": 1000,
    "fetch.message.max.bytes": FETCH,
    "queued.max.messages.kbytes": 1024,
    "fetch.wait.max.ms": 50,
    "log.connection.close": False,
    "log_level": 0,
}
