"""A Faust transport that hands an agent whole chunks, and commits only what the agent has called done.

Faust spends about a millisecond on each message. Here one Faust message is a *chunk*: what one fetch brought of one partition.
And Faust's own acknowledgement is set aside: it acks a message whose agent raised or was cancelled, commits over one that is
still in flight, and acks what it could not decode. A chunk counts as done when `Chunk.done` was called, in order, and
nothing else moves the committed offset.

Five private methods of `faust.transport.consumer.Consumer` are overridden, so the version of Faust is pinned exactly and
`tests/broker/test_faust_traps.py` holds both to what is relied on here.

Threads for blocking work, one a partition: what a partition sends goes out in the order in which it was asked for.

Cancelling whoever waits does not stop a send that has begun; the next one of that partition waits for it all the same.

librdkafka's connection settings, as Faust wants them said.
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

from hub.log.event_log import Stored

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class PartitionThreads:
    """A thread for each partition that has asked, and one (None) for reading state."""

    _lanes: dict[int | None, ThreadPoolExecutor] = field(default_factory=dict)

    async def run(self, lane: int | None, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do blocking work in a lane, behind what was asked for there before."""
        if lane not in self._lanes:
            self._lanes[lane] = ThreadPoolExecutor(1, f"lane-{lane}")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._lanes[lane], lambda: work(*args, **kwargs))


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
        # Without a password OpenSSL would ask for one at the terminal and wait there.
        password = client.get("ssl.key.password", "")
        context.load_cert_chain(client["ssl.certificate.location"], client.get("ssl.key.location"), password)
    return context


@dataclass(eq=False)
class Chunk:
    """Records of one partition, in order and without any between them left out."""

    partition: int
    records: Sequence[Stored]
    next_offset: int
    finished: bool = field(default=False, init=False)

    def done(self) -> None:
        """Say that outputs and state of every record are in the log: the chunk's offsets may be committed."""
        self.finished = True


class ChunkConsumer(Consumer):
    """Faust's consumer, by chunks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open: defaultdict[TP, deque[Chunk]] = defaultdict(deque)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> dict[TP, list[Chunk]]:  # noqa: ASYNC109  # Faust's signature
        fetched = await super()._getmany(active_partitions, timeout)
        return {
            tp: [Chunk(tp.partition, records, records[-1].offset + 1)] for tp, records in fetched.items() if records
        }

    def _to_message(self, tp: TP, record: Chunk) -> ConsumerMessage:
        """Called as the chunk is handed on: from here on it is awaited."""
        self._open[tp].append(record)
        first = record.records[0]
        return ConsumerMessage(
            tp.topic, tp.partition, first.offset, 0.0, 0, [], None, record, None, 0, 0, tp,  # type: ignore[arg-type]  # Faust hands the value through as it is
            generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets between two chunks' first records are no gap: a chunk knows where the next begins."""

    def _new_offset(self, tp: TP) -> int | None:
        """Where to commit: behind the last chunk that is done and has none before it that is not."""
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        chunks, committable = self._open[tp], None
        while chunks and chunks[0].finished:
            committable = chunks.popleft().next_offset
        return committable

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget what is in flight of them; whoever has them next reads from the last commit."""
        for tp in revoked:
            self._open.pop(tp, None)
        await super().on_partitions_revoked(revoked)

    def awaited(self) -> dict[TP, Chunk]:
        """Partition → the oldest chunk that is not done."""
        return {tp: chunks[0] for tp, chunks in self._open.items() if chunks}


class ChunkTransport(Transport):
    """Give it to `app.transport` before the app starts."""

    Consumer: ClassVar[type[Consumer]] = ChunkConsumer
