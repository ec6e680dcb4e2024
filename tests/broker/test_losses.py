"""The worker before a loss in the log: the partition stops, the others go on, and nothing is passed over in silence."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from hub.log.event_log import Outgoing
from hub.log.partitioner import partition_of
from hub.log.sequence_gaps import repaired
from hub.log.sequences import Loss
from hub.ops.embedded_kafka import EmbeddedKafka
from hub.processor.halting import EXIT_FAILED
from hub.processor.state_reset import forget
from schemas.envelope import Event
from schemas.topics import COMMANDS, EVENTS, PARTITIONS, STATE
from tests.broker.program import Program, until
from tests.broker.worker_stage import WorkerStage, lines
from tests.events import won
from tests.remade_topics import make_anew

pytestmark = pytest.mark.broker
COMMANDS_A_DEAL = 5
OUTBOX = "o1"


@pytest.fixture
def stage(broker: EmbeddedKafka, tmp_path: Path) -> Iterator[WorkerStage]:
    """A home with acme's rules, on a broker of the test's own: what is deleted there is nobody else's."""
    made = WorkerStage(broker, tmp_path)
    yield made
    made.close()


class Sent:
    """What a relay sends: the deals of each partition, numbered one after the other."""

    def __init__(self, stage: WorkerStage) -> None:
        self.stage = stage
        self.last = dict.fromkeys(range(PARTITIONS), 0)

    def deals(self, partition: int, count: int, name: str = "d") -> list[Outgoing]:
        """So many new won deals of a partition, as records that carry the next sequences."""
        found: list[Outgoing] = []
        number = 0
        while len(found) < count:
            number += 1
            event = won(f"{name}{self.last[partition]}-{number}", version="1")
            if partition_of(event.case.encode(), PARTITIONS) == partition:
                found.append(self.numbered(event, partition))
        return found

    def numbered(self, event: Event, partition: int) -> Outgoing:
        """An event as the relay sends it."""
        self.last[partition] += 1
        tail = b',"sequence":"%d","outbox":"%s"}' % (self.last[partition], OUTBOX.encode())
        return Outgoing(EVENTS.name, event.case.encode(), event.to_json()[:-1] + tail, partition)


def commands(stage: WorkerStage, records: list[Outgoing]) -> int:
    """How many different commands these deals have come to."""
    cases = {record.key.decode() for record in records}
    return len({told["id"] for told in stage.news() if "record" not in told and told["case"] in cases})


def halts(worker: Program) -> list[dict[str, Any]]:
    return lines(worker, "worker.halted")


def settle(stage: WorkerStage, loss: Loss) -> None:
    """What `hub repair` and the relay do."""
    news = repaired(loss, datetime.now(UTC), published=0, accepted=1, reason="a test", by="me")
    stage.append([news])


def stop(worker: Program) -> None:
    assert worker.end(signal.SIGTERM, 20) == 0, worker.last_words()


def test_a_gap_stops_its_partition_only_until_it_was_dealt_with(stage: WorkerStage) -> None:
    sent, worker = Sent(stage), stage.start("--patience", "3")
    before, (lost, *after), beside = sent.deals(4, 3), sent.deals(4, 4), sent.deals(5, 3)
    stage.put([*before, *after, *beside])
    until(lambda: len(halts(worker)) == 1, worker.last_words)
    told = halts(worker)[0]
    assert (told["code"], told["partition"], told["offset"]) == ("HUB-E2110", 4, 3)
    assert (told["outbox"], told["last"], told["found"]) == (OUTBOX, 3, 5)
    until(lambda: commands(stage, before + beside) == 6 * COMMANDS_A_DEAL, "the others go on")
    more = sent.deals(5, 200, "more")
    stage.put([*sent.deals(4, 200, "behind"), *more])
    until(lambda: commands(stage, more) == 200 * COMMANDS_A_DEAL, "the others still go on")
    assert commands(stage, after) == 0
    assert stage.committed()[4] <= 3
    alarm = [each["event"] for each in stage.news() if each.get("record") == "event"]
    (halted,) = [event for event in alarm if event["type"] == "hub.partition.halted"]
    assert (halted["subject"], halted["data"]["code"]) == ("partition/hub/4", "HUB-E2110")

    settle(stage, Loss("gap", 4, 3, OUTBOX, 3, 5))
    stage.catches_up()
    assert commands(stage, after) == 3 * COMMANDS_A_DEAL
    assert commands(stage, [lost]) == 0
    assert lines(worker, "worker.goes-on")
    assert worker.running  # the watchdog does not take a halt for a stall
    stop(worker)


def test_a_restart_meets_the_gap_again_and_passes_it_once_it_is_settled(stage: WorkerStage) -> None:
    sent, worker = Sent(stage), stage.start()
    before, (_lost, *after) = sent.deals(2, 1), sent.deals(2, 2)
    stage.put([*before, *after])
    until(lambda: len(halts(worker)) == 1, worker.last_words)
    worker.end(signal.SIGKILL)
    worker = stage.start()
    until(lambda: len(halts(worker)) == 1, worker.last_words)
    stop(worker)
    settle(stage, Loss("gap", 2, 1, OUTBOX, 1, 3))
    worker = stage.start()
    stage.catches_up()
    assert commands(stage, after) == COMMANDS_A_DEAL
    (_lost, *more) = sent.deals(2, 2)
    stage.put(more)
    until(lambda: bool(halts(worker)) and halts(worker)[-1]["last"] == 3, "another gap is a loss of its own")
    stop(worker)


def test_repeats_are_no_gap_across_restarts_and_lost_positions(stage: WorkerStage) -> None:
    sent, worker = Sent(stage), stage.start()
    first = sent.deals(1, 5)
    stage.put([*first, *first[2:]])
    stage.catches_up()
    stop(worker)
    stage.forget_positions()
    worker = stage.start()
    stage.put([first[4], *sent.deals(1, 2)])
    stage.catches_up()
    assert not halts(worker)
    stop(worker)


def test_events_that_the_log_no_longer_keeps_are_an_alarm_and_no_reset(stage: WorkerStage) -> None:
    sent, worker = Sent(stage), stage.start()
    stage.put(sent.deals(7, 2))
    stage.catches_up()
    stop(worker)
    stage.put([*sent.deals(7, 3), *(after := sent.deals(7, 1))])
    cut(stage, 7, 5)
    worker = stage.start()
    until(lambda: len(halts(worker)) == 1, worker.last_words)
    told = halts(worker)[0]
    assert (told["code"], told["partition"], told["last"], told["found"]) == ("HUB-E2111", 7, 2, 5)
    assert commands(stage, after) == 0
    settle(stage, Loss("gone", 7, 5, "", 2, 5))
    stage.catches_up()
    assert commands(stage, after) == COMMANDS_A_DEAL
    stop(worker)


def test_a_log_that_was_made_anew_is_not_taken_for_the_old_one(stage: WorkerStage) -> None:
    """Also when it is made anew under a worker that runs: what it reads there first are numbers that cannot be there."""
    sent, worker = Sent(stage), stage.start()
    stage.put(sent.deals(3, 4))
    stage.catches_up()
    stop(worker)
    make_anew(stage.client, EVENTS.name)
    worker = stage.start()
    until(lambda: bool(halts(worker)), worker.last_words)
    assert {(told["code"], told["partition"]) for told in halts(worker)} == {("HUB-E2112", 3)}
    stop(worker)
    stage.put(after := sent.deals(3, 6))
    worker = stage.start()
    until(lambda: bool(halts(worker)), worker.last_words)
    assert commands(stage, after) == 0
    stop(worker)

    forget(stage.client, None)
    assert sum(stage.log.ends(STATE.name).values()) == 0
    worker = stage.start()
    until(lambda: bool(halts(worker)), worker.last_words)
    told = halts(worker)[0]
    assert (told["code"], told["last"], told["found"]) == ("HUB-E2110", 0, 5)
    settle(stage, Loss("gap", 3, 0, OUTBOX, 0, 5))
    stage.catches_up()
    assert commands(stage, after) == 6 * COMMANDS_A_DEAL
    stop(worker)


def test_state_that_is_gone_ends_the_worker_instead_of_starting_every_case_anew(stage: WorkerStage) -> None:
    sent, worker = Sent(stage), stage.start()
    stage.put(sent.deals(0, 2))
    stage.catches_up()
    stop(worker)
    make_anew(stage.client, STATE.name)
    stage.put(sent.deals(0, 1))
    worker = stage.start(fail="worker.states-delivered:1000000:exit")
    assert worker.ended() == EXIT_FAILED
    assert "HUB-E6023" in worker.last_words()
    made = sum(stage.log.ends(COMMANDS.name).values())
    forget(stage.client, None)
    worker = stage.start()
    stage.catches_up()
    assert sum(stage.log.ends(COMMANDS.name).values()) > made
    assert len({told["id"] for told in stage.news() if "record" not in told}) == 3 * COMMANDS_A_DEAL
    stop(worker)


def cut(stage: WorkerStage, partition: int, before: int) -> None:
    """Have the broker drop what lies before an offset, as its retention does."""
    admin = AdminClient({**stage.client})
    (done,) = admin.delete_records([TopicPartition(EVENTS.name, partition, before)]).values()
    done.result(20)
    assert stage.log.starts(EVENTS.name)[partition] == before
