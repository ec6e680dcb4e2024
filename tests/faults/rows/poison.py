"""Records that are no events, written to the log by a foreign hand, each followed by a sound one of its case: F22.

A fault is such a record. Each is parked once; where its key names a case, the sound one waits behind it; everybody else goes on.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import orjson

from hub.log.kafka_writers import producer
from schemas.topics import EVENTS
from tests.acceptance.running import until
from tests.events import event
from tests.faults.row import Row
from tests.faults.stage import LONGEST, Stage

BATCH = 20


def poisoned(chosen: random.Random, sound: Mapping[str, Any]) -> bytes | None:
    """One of the ways in which a record is no event."""
    raw = orjson.dumps(sound)
    field = chosen.choice(
        ["id", "type", "subject", "time", "recordedtime", "partitionkey", "correlationid", "dataschema"]
    )
    return chosen.choice(
        (
            None,
            b"",
            chosen.randbytes(chosen.randint(1, 400)),
            raw.replace(b"crm", b"\xff\xfe"),
            raw[: chosen.randrange(1, len(raw))],
            b"[" * 100_000,
            orjson.dumps({name: value for name, value in sound.items() if name != field}),
            orjson.dumps({**sound, field: chosen.choice([None, 7, "", "x" * 500, [], {"a": 1}])}),
            orjson.dumps(
                {**sound, "partitionkey": "opportunity/crm/another", "correlationid": "opportunity/crm/another"}
            ),
            raw + b" " * 600_000,
        )
    )


def records(chosen: random.Random, first: int) -> list[tuple[bytes | None, bytes | None]]:
    """Keys and values: bad ones with a key and without, and behind each that has one a sound event of the same case."""
    made: list[tuple[bytes | None, bytes | None]] = []
    for number in range(first, first + BATCH):
        sound = event("crm.opportunity.changed", f"opportunity/crm/poison-{number}", data={"name": "A", "account": "B"})
        bad, key = poisoned(chosen, sound.model_dump(exclude_none=True)), sound.case.encode()
        made += [(None, bad or b"no key")] if number % 5 == 0 else [(key, bad), (key, sound.to_json())]
    return made


def poison(stage: Stage, chosen: random.Random) -> None:
    """Write a batch of them."""
    writer = producer(stage.hub.client)
    written = records(chosen, stage.poisoned)
    for key, value in written:
        writer.produce(EVENTS.name, value, key)
    assert writer.flush(60) == 0
    stage.poisoned += BATCH
    stage.must_be_parked += len(written)
    stage.faults += BATCH


def all_parked_once(stage: Stage) -> list[str]:
    """What is parked against what was written."""
    try:
        until(lambda: count(stage) >= stage.must_be_parked, LONGEST, "all poison is parked")
    except AssertionError as error:
        return [str(error)]
    found = count(stage)
    return [] if found == stage.must_be_parked else [f"{found} parked where {stage.must_be_parked} are due"]


def count(stage: Stage) -> int:
    """Events that are parked."""
    return int(stage.hub.json("parked", "--kind", "event")["count"])


ROWS = [Row("F22", "records that are no events", 60, 3_000, poison, checks=all_parked_once)]
