"""A log of very many deals, as the relay writes them, made by replacing text: a million events in some seconds."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from hub.log.event_log import EventLog, Outgoing
from hub.log.partitioner import partition_of
from schemas.topics import EVENTS, PARTITIONS
from tests.bench.won2task import AT_ONCE, story

NUMBER = 4_711_471
_TEMPLATES = [event.model_copy(update={"sequence": None}).to_json() for event in story(NUMBER)]
_CASE = story(NUMBER)[0].case.encode()


def append_deals(log: EventLog, deals: int, size: int = 10_000) -> None:
    """Append all events of so many deals to `hub.events`, those of some hundred deals mixed with each other's."""
    writer, batch = log.writer(), list[Outgoing]()
    for record in records_of(deals):
        batch.append(record)
        if len(batch) == size:
            writer.append(batch, 120)
            batch = []
    writer.append(batch, 120)
    writer.close()


def records_of(deals: int, seed: int = 5) -> Iterator[Outgoing]:
    """The events in their order; the same for the same arguments. Each partition's sequence is without a gap."""
    chosen = random.Random(seed)
    last = [0] * PARTITIONS
    active: list[tuple[bytes, int, Iterator[bytes]]] = []
    begun = 0
    while active or begun < deals:
        if begun < deals and len(active) < AT_ONCE:
            active.append(_deal(begun))
            begun += 1
            continue
        at = chosen.randrange(len(active))
        key, partition, left = active[at]
        body = next(left, None)
        if body is None:
            active[at] = active[-1]
            active.pop()
            continue
        last[partition] += 1
        yield Outgoing(EVENTS.name, key, body + b',"sequence":"%d","outbox":"bench"}' % last[partition], partition)


def _deal(number: int) -> tuple[bytes, int, Iterator[bytes]]:
    old, new = b"%07d" % NUMBER, b"%07d" % number
    key = _CASE.replace(old, new)
    return key, partition_of(key, PARTITIONS), iter([body.replace(old, new) for body in _bodies()])


def _bodies() -> Sequence[bytes]:
    """Without what the relay puts at the end."""
    return [template.replace(b'"outbox":"bench",', b"").removesuffix(b"}") for template in _TEMPLATES]
