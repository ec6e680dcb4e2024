"""Events that come often, in any order, and say that they are of other times: F19–F21. A fault is such a push."""

from __future__ import annotations

import contextlib
import random
import time

from pydantic import ValidationError

from hub.kit.facts import MAX_CLOCK_LEAD
from hub.log.event_log import Record, read_to_end
from hub.log.kafka_log import KafkaLog
from schemas.envelope import Event, parse_time
from schemas.topics import EVENTS
from tests.faults.row import Row
from tests.faults.stage import Stage


def for_a_while(stage: Stage, chosen: random.Random) -> None:
    """Let them come, and count what was amiss."""
    time.sleep(2.0)
    stage.faults = stage.load.repeated + stage.load.out_of_order + stage.load.odd_dates


def nothing_from_the_future(stage: Stage) -> list[str]:
    """No event of the log may be of a time much later than it was recorded; what was claimed stands beside it."""
    log = KafkaLog(stage.hub.client)
    late, claimed = list[str](), 0
    for batch in read_to_end(log, EVENTS.name, log.starts(EVENTS.name)):
        for event in filter(None, map(_event, batch)):
            claimed += event.claimedtime is not None
            if parse_time(event.time) > parse_time(event.recordedtime) + MAX_CLOCK_LEAD:
                late.append(event.id)
    return [f"{len(late)} events from the future, as {late[0]}"] if late else [] if claimed else ["no time was claimed"]


def _event(record: Record) -> Event | None:
    with contextlib.suppress(ValidationError):
        return Event.from_json(record.value or b"")
    return None  # what another row has written there


ROWS = [
    Row("F19", "three deals in ten come up to ten times", 200, 20_000, for_a_while, repeats=(1,) * 7 + (4, 7, 10)),
    Row("F20", "news of a deal in any order", 200, 20_000, for_a_while, shuffled=True),
    Row(
        "F21",
        "deals of long ago and of times to come",
        40,
        200,
        for_a_while,
        dated=True,
        checks=nothing_from_the_future,
    ),
]
