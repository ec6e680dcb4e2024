"""A Faust transport with manual commits: an agent receives whole chunks, and only chunks that it marks as done are committed.

Faust spends about a millisecond on each message. Here one Faust message is a *chunk*: the records of one partition in one fetch.
Faust's own acknowledgement is not used: it acks a message whose agent raised or was cancelled, commits past one that is still in
flight, and acks one that it could not decode. Only `Chunk.done`, called in order, moves the committed offset.

The consumer overrides five private methods of `faust.transport.consumer.Consumer`, so Faust's version is pinned exactly and
`tests/broker/test_faust_traps.py` checks both for the behaviour that this file relies on.

`PartitionThreads` runs blocking work in one thread a partition, so that a partition's sends keep their order. Cancelling a waiting
caller does not stop a send that has begun; the partition's next send waits for it all the same. `faust_broker` translates
librdkafka's connection settings into Faust's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar, ParamSpec, TypeVar

from faust.auth import SASLCredentials, SSLCredentials
from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP, ConsumerMessage
from faust.types.auth import CredentialsT

from hub.log.event_log import StoredRecord

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class PartitionThreads:
    """One thread for each partition, created on first use, and one (None) for reading state."""

    _pools: dict[int | None, ThreadPoolExecutor] = field(default_factory=dict)

    async def run(self, partition: int | None, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work in a partition's thread, after the work submitted there before."""
        if partition not in self._pools:
            self._pools[partition] = ThreadPoolExecutor(1, f"partition-{partition}")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pools[partition], lambda: work(*args, **kwargs))


def faust_broker(client: Mapping[str, Any]) -> tuple[str, CredentialsT | None]:
    """The broker's URL and its credentials."""
    hosts = str(client["bootstrap.servers"]).split(",")
    return ";".join(f"kafka://{host.strip()}" for host in hosts), _credentials(client)


def _credentials(client: Mapping[str, Any]) -> CredentialsT | None:
    protocol = str(client.get("security.protocol", "plaintext")).lower()
    context = _tls(client) if protocol.endswith("ssl") else None
    if protocol.startswith("sasl"):
        return SASLCredentials(
            mechanism=client["sasl.mechanism"],
            username=client["sasl.username"],
            password=client["sasl.password"],
            ssl_context=context,
        )
    return SSLCredentials(context=context) if context else None


def _tls(client: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=client.get("ssl.ca.location"))
    if "ssl.certificate.location" in client:
        # Without a password OpenSSL would prompt for one at the terminal and wait there.
        password = client.get("ssl.key.password", "")
        context.load_cert_chain(client["ssl.certificate.location"], client.get("ssl.key.location"), password)
    return context


@dataclass(eq=False)
class Chunk:
    """Consecutive records of one partition, in order."""

    partition: int
    records: Sequence[StoredRecord]
    next_offset: int
    finished: bool = field(default=False, init=False)

    def done(self) -> None:
        """Mark that outputs and state of every record are in the log: the chunk's offsets may be committed."""
        self.finished = True


class ChunkConsumer(Consumer):
    """Faust's consumer, which delivers and commits chunks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open: defaultdict[TP, deque[Chunk]] = defaultdict(deque)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> dict[TP, list[Chunk]]:  # noqa: ASYNC109  # Faust's signature
        fetched = await super()._getmany(active_partitions, timeout)
        return {
            tp: [Chunk(tp.partition, records, records[-1].offset + 1)] for tp, records in fetched.items() if records
        }

    def _to_message(self, tp: TP, record: Chunk) -> ConsumerMessage:
        """Called when the chunk is handed to the agent: from here on it is open until it is done."""
        self._open[tp].append(record)
        first = record.records[0]
        return ConsumerMessage(
            tp.topic, tp.partition, first.offset, 0.0, 0, [], None, record, None, 0, 0, tp,  # type: ignore[arg-type]  # Faust hands the value through as it is
            generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets between two chunks' first records are no gap: a chunk knows where the next begins."""

    def _new_offset(self, tp: TP) -> int | None:
        """The offset to commit: after the last chunk of those that are done without an open one before them."""
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        chunks, committable = self._open[tp], None
        while chunks and chunks[0].finished:
            committable = chunks.popleft().next_offset
        return committable

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Drop the open chunks of revoked partitions; their next owner reads from the last commit."""
        for tp in revoked:
            self._open.pop(tp, None)
        await super().on_partitions_revoked(revoked)

    def awaited(self) -> dict[TP, Chunk]:
        """Partition → its oldest open chunk."""
        return {tp: chunks[0] for tp, chunks in self._open.items() if chunks}


class ChunkTransport(Transport):
    """The transport to set as `app.transport` before the app starts."""

    Consumer: ClassVar[type[Consumer]] = ChunkConsumer
