"""The connectors program on a real broker: what was answered with 202 is in the log, whatever dies on the way."""

from __future__ import annotations

import random
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest

from hub.ledger import parked
from hub.ledger.ledger import Ledger
from tests.broker.connectors_stage import Stage, check_log
from tests.broker.program import Program, until
from tests.kafka_fixture import embedded
from tests.ports import free_port
from tests.postgres_fixture import NewDatabase

pytestmark = pytest.mark.broker


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.systems)])
def stage(request: pytest.FixtureRequest, kafka: str, tmp_path: Path) -> Iterator[Stage]:
    url = "sqlite"
    if request.param == "postgresql":
        new: NewDatabase = request.getfixturevalue("postgres")
        url = new()
    made = Stage.anew(tmp_path / "home", kafka, url)
    yield made
    made.stop_all()


@pytest.fixture
def plain(kafka: str, tmp_path: Path) -> Iterator[Stage]:
    """A stage on SQLite."""
    made = Stage.anew(tmp_path / "home", kafka)
    yield made
    made.stop_all()


def pushed(stage: Stage, numbers: range) -> set[str]:
    """Push from several senders at once; the subjects that were answered with 202."""
    with ThreadPoolExecutor(4) as senders:
        answers = list(senders.map(stage.push, numbers))
    return {f"opportunity/crm/O-{n}" for n, status in zip(numbers, answers, strict=True) if status == 202}


def in_rounds(stage: Stage, program: Program, rounds: int) -> set[str]:
    """Push one after the other, each relayed before the next, until the program ends; as `pushed`."""
    accepted = set[str]()
    for number in range(rounds):
        accepted |= pushed(stage, range(number, number + 1))
        until(lambda: not program.running or stage.counts()["unpublished"] == 0, "the push is relayed")
    return accepted


def test_pushes_reach_the_log_once_and_a_stop_leaves_nothing_behind(stage: Stage) -> None:
    program = stage.start()
    accepted = pushed(stage, range(30))
    assert len(accepted) == len(pushed(stage, range(30))) == 30
    assert stage.get("/health/connectors")[1]["status"] == "ok"
    assert program.end(signal.SIGTERM) == 0
    log = stage.log()
    assert check_log(log) == accepted
    assert sum(map(len, log.values())) == 30
    assert stage.counts() == {"accepted": 30, "held": 0, "unpublished": 0}


def test_told_to_stop_under_load_it_finishes_what_it_accepted(plain: Stage) -> None:
    program = plain.start()
    stop = threading.Timer(0.3, program.process.send_signal, [signal.SIGTERM])
    stop.start()
    accepted = pushed(plain, range(400))
    stop.join()
    assert program.ended() == 0
    assert 0 < len(accepted) < 400
    assert check_log(plain.log()) == accepted
    assert not [line for line in program.lines if '"error"' in line or "Traceback" in line]


def test_many_slow_senders_cost_little_and_keep_nobody_out(plain: Stage) -> None:
    program = plain.start()
    before = _memory(program.pid)
    slow = [socket.create_connection(("127.0.0.1", plain.port)) for _ in range(500)]
    try:
        for number, one in enumerate(slow):
            head = b"POST /webhooks/crm HTTP/1.1\r\nhost: localhost\r\n"
            one.sendall(head if number % 2 else head + b"content-length: 1000000\r\n\r\n" + b"x" * 1000)
        assert len(pushed(plain, range(20))) == 20
        assert _memory(program.pid) - before < 50 * 1024 * 1024
        for one in slow:
            one.settimeout(30)
            assert _answer(one)[9:12] in (b"", b"408", b"503")
    finally:
        for one in slow:
            one.close()


BOUNDARIES = ("relay.taken:3:exit", "intake.committed:7:exit", "relay.delivered:3:exit", "relay.taken:1:exit")


@pytest.mark.parametrize(
    ("stage", "fail"),
    [
        *(("sqlite", each) for each in BOUNDARIES),
        pytest.param("postgresql", BOUNDARIES[0], marks=pytest.mark.systems),
        *(pytest.param("postgresql", e, marks=[pytest.mark.systems, pytest.mark.nightly]) for e in BOUNDARIES[1:]),
    ],
    indirect=["stage"],
)
def test_a_crash_at_any_boundary_loses_nothing_that_was_accepted(stage: Stage, fail: str) -> None:
    program = stage.start(fail)
    accepted = in_rounds(stage, program, 2) | pushed(stage, range(40))
    assert program.ended() == 137
    stage.start()
    retried = pushed(stage, range(40))
    assert len(retried) == 40
    stage.drained()
    assert accepted <= check_log(stage.log()) == retried
    assert stage.counts()["accepted"] == 40


def test_kills_at_random_moments_lose_nothing_that_was_accepted(plain: Stage) -> None:
    chance, accepted = random.Random(20261122), set[str]()
    for turn in range(5):
        program = plain.start()
        killer = threading.Timer(chance.uniform(0.02, 0.4), program.process.kill)
        killer.start()
        accepted |= pushed(plain, range(turn * 200, turn * 200 + 200))
        killer.join()
        program.ended()
    assert accepted
    plain.start()
    plain.drained()
    assert accepted <= check_log(plain.log())


@pytest.mark.slow
def test_a_relay_that_sleeps_on_what_it_took_is_replaced_and_does_no_harm_when_it_wakes(stage: Stage) -> None:
    """The zombie: it has given sequences and not sent them; another sends them; then it wakes and sends them too."""
    sleeper = stage.start("relay.taken:3:stop")
    accepted = in_rounds(stage, sleeper, 2) | pushed(stage, range(3))
    until(sleeper.is_stopped, "the first relay sleeps")
    other = stage.start(beside=True)
    stage.drained()
    beside = Stage(stage.folder / "beside", stage.kafka, stage.url, port=_port(other.lines))
    accepted |= pushed(beside, range(100, 160))
    sleeper.process.send_signal(signal.SIGCONT)
    accepted |= pushed(beside, range(200, 260)) | pushed(stage, range(300, 330))
    stage.drained()
    assert check_log(stage.log()) >= accepted
    assert len(accepted) >= 150


def test_while_the_broker_is_away_pushes_are_taken_and_then_relayed(tmp_path: Path) -> None:
    broker = embedded(tmp_path / "kafka", free_port())
    stage = Stage(tmp_path / "home", broker.start())
    try:
        program = stage.start()
        accepted = pushed(stage, range(20))
        stage.drained()
        broker.stop()
        accepted |= pushed(stage, range(100, 140))
        assert len(accepted) == 60
        until(lambda: stage.get("/health/connectors")[0] == 503, "it says that the log is away", 60.0)
        broker.start()
        stage.drained(90.0)
        until(lambda: stage.get("/health/connectors")[0] == 200, "it says that all is well", 10.0)
        assert check_log(stage.log()) == accepted
        told = [orjson.loads(line)["event"] for line in program.lines if '"relay.' in line]
        assert told == ["relay.waits", "relay.goes_on"]
        assert len(program.lines) < 20
    finally:
        broker.stop()
        stage.stop_all()


def test_a_parked_push_that_a_person_asks_about_is_answered_by_the_running_program(plain: Stage) -> None:
    plain.start()
    assert plain.push(1, currency="yuan") == 202
    ledger = Ledger(plain.url)
    try:
        with ledger.reading() as conn:
            (entry,) = parked.open_entries(conn)
        ledger.writer.run(lambda conn: parked.request(conn, entry.id, "discard", "wang.fang", "a test"))

        def settled() -> bool:
            with ledger.reading() as conn:
                found = parked.get(conn, entry.id)
            return found is not None and found.state == "discarded"

        until(settled, "the entry is discarded", 5.0)
    finally:
        ledger.close()
    plain.drained()
    (told,) = [event for events in plain.log().values() for event in events]
    assert (told.type, told.data["reason"]) == ("hub.parked.discarded", "a test")


def test_other_people_are_known_without_a_restart(plain: Stage) -> None:
    program = plain.start()
    plain.push(1)
    plain.people("li.lei")
    until(lambda: any('"people.read"' in line for line in program.lines), "people.yaml is read again", 10.0)
    plain.push(2)
    plain.drained()
    owners = {event.data["owner"] for events in plain.log().values() for event in events}
    assert owners == {"person/wang.fang", "person/li.lei"}


@pytest.mark.parametrize(
    ("changed", "code"),
    [({"host": "0.0.0.0"}, "HUB-E7001"), ({"ledger": "oracle://x/y"}, "HUB-E5001")],
)
def test_what_it_cannot_start_with_is_one_line(plain: Stage, changed: dict[str, str], code: str) -> None:
    plain.settings(**changed)
    program = plain.start(ready=False)
    assert program.ended() == 1
    until(lambda: any(line.startswith(code) for line in program.lines), "the reason is told")
    assert not [line for line in program.lines if "Traceback" in line]


def test_a_port_that_is_taken_is_one_line(plain: Stage) -> None:
    plain.start()
    second = plain.start(ready=False)
    assert second.ended() == 1
    until(lambda: any(line.startswith("HUB-E7010") for line in second.lines), "the reason is told")


def test_no_secret_is_written(plain: Stage) -> None:
    program = plain.start()
    plain.push(1)
    program.end(signal.SIGTERM)
    assert program.lines
    assert "whsec_" not in "\n".join(program.lines)


def _memory(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * resource.getpagesize()


def _answer(connection: socket.socket) -> bytes:
    """What comes back before the connection closes."""
    told = b""
    try:
        while chunk := connection.recv(4096):
            told += chunk
    except ConnectionResetError:
        pass
    return told


def _port(lines: list[str]) -> int:
    until(lambda: any('"ready"' in line for line in lines), "the port is told")
    return int(next(orjson.loads(line)["port"] for line in lines if '"ready"' in line))
