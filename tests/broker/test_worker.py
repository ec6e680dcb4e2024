"""The worker as a process, on a real broker: killed, stalled, joined, poisoned, and exact all the same."""

from __future__ import annotations

import base64
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from hub.log.event_log import Outgoing
from hub.ops.embedded_kafka import EmbeddedKafka
from hub.processor.halting import EXIT_STALLED
from schemas.envelope import Event
from schemas.topics import COMMANDS, EVENTS, STATE
from tests.broker.program import Program, until
from tests.broker.worker_stage import VIEW, WorkerStage, lines, restored
from tests.events import DEAL, event, won
from tests.kafka_fixture import client_of, embedded

pytestmark = pytest.mark.broker

COMMANDS_A_DEAL = 5
"""Of acme's rule for won deals: a project, three tasks, a message."""
STOPS_WITHIN = 15.0


@pytest.fixture(scope="module")
def kafka_of_ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker of this module's own, which a test may stop and let go on."""
    broker = embedded(tmp_path_factory.mktemp("worker") / "data")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def stage(kafka_of_ours: EmbeddedKafka, tmp_path: Path) -> Iterator[WorkerStage]:
    """A home with acme's rules; its log is the module's, so that it grows from test to test."""
    made = WorkerStage(kafka_of_ours, tmp_path)
    yield made
    made.close()


@pytest.fixture
def deals() -> str:
    """What the ids of this test's deals begin with."""
    return uuid.uuid4().hex[:6]


def history(deals: str, count: int, seed: int = 7) -> list[Event]:
    """Four events of each of so many deals, mixed, and one in a hundred of them twice."""
    chosen = random.Random(seed)
    told = []
    for n in range(count):
        ref = f"opportunity/crm/{deals}-{n}"
        told.append(
            [
                event("crm.opportunity.created", ref, version="1"),
                event("crm.opportunity.changed", ref, version="2", data={**DEAL, "amount": str(100_000 + n)}),
                won(f"{deals}-{n}", version="3", data={**DEAL, "amount": str(100_000 + n)}),
                event("crm.opportunity.changed", ref, version="4", data={**DEAL, "name": f"网关 {n}"}),
            ]
        )
    mixed = []
    while told:
        deal = chosen.choice(told)
        mixed.append(deal.pop(0))
        mixed += mixed[-1:] if chosen.random() < 0.01 else []
        if not deal:
            told.remove(deal)
    return mixed


def stop(program: Program) -> None:
    """As the supervisor does; it ends in order, and soon."""
    assert program.end(signal.SIGTERM, STOPS_WITHIN) == 0, program.last_words()


def exact(stage: WorkerStage, deals: str, count: int) -> None:
    """Every deal has its commands, each of them is one of those that a single fold gives, and views and states are its too."""
    found = stage.is_exact(deals)
    assert len(found.commands) == count * COMMANDS_A_DEAL
    assert len(found.views) == len(found.states) == count


def test_two_thousand_events_give_their_commands_once(stage: WorkerStage, deals: str) -> None:
    worker = stage.start()
    stage.append(history(deals, 500))
    stage.catches_up()
    exact(stage, deals, 500)
    assert set(stage.outcome(deals).commands.values()) == {1}
    stop(worker)


@pytest.mark.parametrize("place", ["before-fold", "outputs-delivered", "states-delivered"])
def test_killed_at_a_boundary_it_loses_and_doubles_nothing(stage: WorkerStage, deals: str, place: str) -> None:
    stage.append(history(deals, 500))
    worker = stage.start(fail=f"worker.{place}:5:exit")
    assert worker.ended() == 137
    worker = stage.start()
    stage.catches_up()
    exact(stage, deals, 500)
    stop(worker)


def test_killed_at_any_time_under_load_it_loses_and_doubles_nothing(stage: WorkerStage, deals: str) -> None:
    chosen = random.Random(11)
    feeding = stage.feed(history(deals, 1500), size=20)
    for _ in range(4):
        worker = stage.start()
        time.sleep(chosen.uniform(0.0, 0.8))  # not for luck: the moment is what is tried
        worker.end(signal.SIGKILL)
    feeding.join()
    worker = stage.start()
    stage.catches_up()
    exact(stage, deals, 1500)
    stop(worker)


def has(worker: Program, partitions: int) -> None:
    """Wait until a worker has so many partitions, and their state."""
    until(lambda: restored(worker)[-1]["partitions"] == partitions, worker.last_words, 60)


def test_workers_that_join_and_leave_share_the_cases_and_stay_exact(stage: WorkerStage, deals: str) -> None:
    first = stage.start(copy="1")
    feeding = stage.feed(history(deals, 1500), size=5)
    second = stage.start(copy="2")
    has(first, 6)
    has(second, 6)
    stop(second)
    has(first, 12)
    third = stage.start(copy="3")
    first.end(signal.SIGKILL)
    has(third, 12)
    feeding.join()
    stage.catches_up()
    exact(stage, deals, 1500)
    stop(third)


def test_a_partition_that_goes_in_the_middle_of_a_chunk_does_not_end_the_worker(stage: WorkerStage, deals: str) -> None:
    first = stage.start(copy="1", module="tests.broker.slow_worker")
    told = first.lines.count("appending")
    feeding = stage.feed(history(deals, 600), size=5)
    until(lambda: first.lines.count("appending") >= told + 12, "its chunks are on their way")
    second = stage.start(copy="2")
    has(first, 6)
    feeding.join()
    stage.catches_up()
    exact(stage, deals, 600)
    stop(second)
    stop(first)


def test_a_stalled_worker_is_ended_by_its_watchdog(stage: WorkerStage, deals: str) -> None:
    stage.append(history(deals, 100))
    worker = stage.start("--patience", "2", fail="worker.before-fold:1:stop")
    until(worker.is_stopped, "it has its first chunk")
    os.kill(stage.kafka.pid, signal.SIGSTOP)
    try:
        worker.process.send_signal(signal.SIGCONT)
        assert worker.ended() == EXIT_STALLED
    finally:
        os.kill(stage.kafka.pid, signal.SIGCONT)
    assert lines(worker, "worker.stalled")
    worker = stage.start("--patience", "2")
    stage.catches_up()
    exact(stage, deals, 100)
    stop(worker)


def test_without_a_broker_it_ends_and_says_so(stage: WorkerStage) -> None:
    command = [sys.executable, "-m", "hub.programs.processor", "--home", str(stage.home)]
    worker = Program(command, {"HUB_KAFKA": "127.0.0.1:1", "HUB_DATA": str(stage.data), "HUB_LANG": "en"})
    stage.programs.append(worker)
    assert worker.ended(60) != 0
    assert any("HUB-E2104" in line for line in worker.lines), worker.last_words()


def poison(deals: str) -> list[tuple[bytes | None, bytes | None]]:
    """Records that are no events, each under the key of a case of its own."""
    sound = won(f"{deals}-sound").to_json()
    return [
        (f"opportunity/crm/{deals}-utf8".encode(), b"\xff\xfe{}"),
        (f"opportunity/crm/{deals}-json".encode(), b"{not json"),
        (f"opportunity/crm/{deals}-schema".encode(), b'{"specversion":"1.0","id":"x"}'),
        (f"opportunity/crm/{deals}-other".encode(), sound),
        (f"opportunity/crm/{deals}-nothing".encode(), None),
        (f"opportunity/crm/{deals}-large".encode(), sound + b" " * 1_900_000),
        (None, sound),
    ]


def put_raw(stage: WorkerStage, records: Sequence[tuple[bytes | None, bytes | None]]) -> None:
    """Append records as no program of ours would."""
    producer = Producer(
        {**client_of(stage.kafka.bootstrap), "partitioner": "murmur2_random", "message.max.bytes": 4_000_000}
    )
    for key, value in records:
        producer.produce(EVENTS.name, value, key)
    assert producer.flush(20) == 0


def test_poison_is_parked_once_and_the_others_flow(stage: WorkerStage, deals: str) -> None:
    stage.append(history(deals, 50))
    before = sum(1 for told in stage.news() if told.get("record") == "parked" and told["case_id"] is None)
    put_raw(stage, poison(deals))
    stage.append([event("crm.opportunity.changed", f"opportunity/crm/{deals}-json")])
    stage.append(history(f"{deals}-later", 50))
    worker = stage.start()
    stage.catches_up()
    found = stage.is_exact(deals)
    assert len(found.commands) == 100 * COMMANDS_A_DEAL
    assert set(found.parked.values()) == {1}
    parked = stage.parked(deals)
    codes = {
        told["case_id"].rpartition("-")[2]: told["code"] for ref, told in parked.items() if ref.startswith("record/")
    }
    assert codes == {
        "utf8": "HUB-E6001",
        "json": "HUB-E6001",
        "schema": "HUB-E6001",
        "nothing": "HUB-E6001",
        "large": "HUB-E6003",
        "other": "HUB-E6002",
    }
    assert [told["code"] for ref, told in parked.items() if ref.startswith("event/")] == ["HUB-E6010"]
    keyless = [told for told in stage.news() if told.get("record") == "parked" and told["case_id"] is None]
    assert [told["code"] for told in keyless[before:]] == ["HUB-E6002"]
    assert base64.b64decode(keyless[-1]["body"]) == poison(deals)[-1][1]
    stop(worker)


def test_a_rule_that_fails_parks_with_its_place_and_finishes_in_order_once_mended(
    stage: WorkerStage, deals: str
) -> None:
    rule = stage.home / "rules" / "won_deal.yaml"
    bad, good = f"opportunity/crm/{deals}-bad", f"{deals}-good"
    worker = stage.start()
    stage.append(
        [
            won(f"{deals}-bad", data={**DEAL, "amount": "viel"}),
            event("crm.opportunity.changed", bad, version="8"),
            won(good),
        ]
    )
    stage.catches_up()
    assert len(stage.outcome(good).commands) == COMMANDS_A_DEAL
    assert not stage.outcome(f"{deals}-bad").commands
    first, second = stage.parked(deals).values()
    assert (first["code"], first["rule"]) == ("HUB-E3121", "won-deal-to-delivery")
    assert first["place"].startswith("rules/won_deal.yaml:5:")
    assert first["seen"]["expression"] == "double(event.data.amount) >= 100000.0"
    assert second["code"] == "HUB-E6010"
    (told,) = lines(worker, "worker.parked")
    assert (told["code"], told["place"]) == (first["code"], first["place"])
    assert "hub parked" in told["fix"]

    rule.write_text(rule.read_text().replace("double(event.data.amount) >= 100000.0", "event.data.amount != ''"))
    until(lambda: changed_rules(stage) == ["won-deal-to-delivery"], "the log tells of the rule's change")
    stage.append([event("hub.parked.retried", bad, id=f"retry-{deals}", data={"parked": first["ref"][6:]})])
    stage.catches_up()
    refs = (first["ref"], second["ref"])
    about = [told for told in stage.news() if bad in (told.get("case"), told.get("case_id")) or told.get("ref") in refs]
    assert [told.get("type", told.get("record")) for told in about][2:] == [
        *("project.create", "task.create", "task.create", "task.create", "message.send"),
        *("settled", "settled"),
    ]
    assert [told["ref"] for told in about[-2:]] == [first["ref"], second["ref"]]
    stop(worker)


def changed_rules(stage: WorkerStage) -> list[str]:
    """Which rules the log has told of that they were changed; each is told of as new besides, when a home is first run."""
    told = [each["event"] for each in stage.news() if each.get("record") == "event"]
    changes = [each for each in told if each["type"] == "hub.rule.changed" and each["data"].get("previous")]
    return [each["subject"].rpartition("/")[2] for each in changes]


def test_a_broken_rule_file_takes_down_none_that_runs(stage: WorkerStage, deals: str) -> None:
    worker = stage.start()
    (stage.home / "rules" / "won_deal.yaml").write_text("rule: [what\n")
    until(lambda: bool(lines(worker, "rules.broken")), "it says that a file is broken")
    stage.append([won(f"{deals}-1")])
    stage.catches_up()
    assert len(stage.outcome(deals).commands) == COMMANDS_A_DEAL
    stop(worker)
    worker = stage.start()
    assert lines(worker, "rules.broken")
    stage.append([won(f"{deals}-2")])
    stage.catches_up()
    assert len(stage.outcome(deals).commands) == 2 * COMMANDS_A_DEAL
    stop(worker)


def test_when_committed_offsets_are_lost_nothing_is_applied_twice(stage: WorkerStage, deals: str) -> None:
    worker = stage.start()
    stage.append(history(deals, 200))
    stage.catches_up()
    stop(worker)
    there = {topic: stage.log.ends(topic) for topic in (COMMANDS.name, VIEW.name, STATE.name)}
    stage.forget_positions()
    worker = stage.start()
    stage.catches_up()
    # What has no key has no state either: it is parked anew, under its old name.
    keyless = sum(1 for told in stage.news() if told.get("record") == "parked" and told["case_id"] is None)
    more = {topic: sum(stage.log.ends(topic).values()) - sum(ends.values()) for topic, ends in there.items()}
    assert more == {COMMANDS.name: keyless // 2, VIEW.name: 0, STATE.name: 0}
    stop(worker)


def test_what_a_worker_that_slept_says_late_is_overruled(stage: WorkerStage, deals: str) -> None:
    ref = f"opportunity/crm/{deals}-1"
    worker = stage.start("--looks", "0.5")
    stage.append([won(f"{deals}-1")])
    stage.catches_up()
    stage.append([event("crm.opportunity.changed", ref, version="9", data={**DEAL, "name": "renamed"})])
    stage.catches_up()
    said = {topic: values_of(stage, topic, ref) for topic in (VIEW.name, STATE.name)}
    for topic, (old, new) in said.items():  # a sleeper sends its views, then its states
        assert old != new
        stage.put([Outgoing(topic, ref.encode(), orjson.dumps(old))])
    owners = {topic: [old, new, old, new] for topic, (old, new) in said.items()}
    until(lambda: {topic: values_of(stage, topic, ref) for topic in said} == owners, "the owner has the last word")
    assert lines(worker, "worker.overruled")
    stop(worker)


def values_of(stage: WorkerStage, topic: str, key: str) -> list[Any]:
    """What a topic holds under a key, in its order."""
    return [orjson.loads(record.value or b"") for record in stage.records(topic) if record.key == key.encode()]


def test_twenty_thousand_cases_are_restored_before_the_next_event(stage: WorkerStage, deals: str) -> None:
    stage.append([event("crm.opportunity.created", f"opportunity/crm/{deals}-{n}", version="1") for n in range(20_000)])
    worker = stage.start()
    stage.catches_up()
    stop(worker)
    worker = stage.start()
    read = restored(worker)[0]
    print(f"restored {read['records']} states in {read['seconds']} s")
    assert read["records"] >= 20_000
    stage.append([won(f"{deals}-{n}", version="2") for n in range(0, 20_000, 1000)])
    stage.catches_up()
    exactly = stage.is_exact(deals)
    assert len(exactly.states) == 20_000
    assert len(exactly.commands) == 20 * COMMANDS_A_DEAL
    stop(worker)
