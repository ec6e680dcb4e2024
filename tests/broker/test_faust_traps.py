"""Faust's traps, told twice: bare Faust loses an event, our chunks do not.

A test whose name begins with `test_bare_` holds Faust to a fault that our transport is built round. When one of them fails,
Faust has mended it: read its change log, and see whether the override that it explains (`hub/processor/source.py`) is still needed.

In each story `committed` is the offset that the group goes on from. An event before it that was never done is lost: nobody
will be handed it again.
"""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from hub.ops.embedded_kafka import EmbeddedKafka
from hub.processor.halting import EXIT_FAILED
from tests.broker.faust_story import OUTPUTS
from tests.broker.program import Program, until
from tests.kafka_fixture import client_of, embedded

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker of this module's own, which a story may stop and let go on."""
    broker = embedded(tmp_path_factory.mktemp("traps") / "data")
    broker.start()
    yield broker
    broker.stop()


@dataclass
class Stage:
    """One story's topic, and the programs that play on it."""

    kafka: EmbeddedKafka
    trap: str
    kind: str
    topic: str = field(default_factory=lambda: f"trap-{uuid.uuid4().hex[:8]}")
    programs: list[Program] = field(default_factory=list)

    def __post_init__(self) -> None:
        admin = AdminClient(client_of(self.kafka.bootstrap))
        for made in admin.create_topics([NewTopic(name, 1, 1) for name in (self.topic, f"{self.topic}-out")]).values():
            made.result(timeout=20)

    def begin(self, *well: str) -> Program:
        command = [sys.executable, "-m", "tests.broker.faust_story", self.trap, self.kind, self.kafka.bootstrap]
        self.programs.append(Program([*command, self.topic, *well]))
        self.programs[-1].wait_for("ready")
        return self.programs[-1]

    def append(self, *values: bytes) -> None:
        producer = Producer({**client_of(self.kafka.bootstrap), "acks": "all"})
        for value in values:
            producer.produce(self.topic, value, b"k")
        assert producer.flush(20) == 0

    def committed(self) -> int:
        """Where the group would go on; 0 when it has committed nothing."""
        consumer = Consumer({**client_of(self.kafka.bootstrap), "group.id": f"group-{self.topic}"})
        try:
            return max(0, consumer.committed([TopicPartition(self.topic, 0)], timeout=20)[0].offset)
        finally:
            consumer.close()

    def reaches(self, offset: int) -> None:
        """Wait until just so much is committed."""
        until(lambda: self.committed() >= offset, f"commits {offset}")
        assert self.committed() == offset

    def loses(self, program: Program, value: str, committed: int) -> None:
        """Bare Faust's fault: it commits past an event that was never done."""
        mended = (
            f"bare Faust passes over {value!r}; if it does not, {self.trap.upper()} is mended: see this file's head"
        )
        until(lambda: self.committed() >= committed, mended)
        assert not program.said(f"done {value}"), mended

    def tried_to_commit(self, program: Program) -> None:
        """Wait until a whole attempt to commit has begun and ended from now on."""
        before = program.lines.count("commit")
        until(lambda: program.lines.count("commit") >= before + 2, "tries to commit")

    def handled(self, program: Program, *values: str) -> None:
        """Append values one at a time, and wait until each is done."""
        for value in values:
            self.append(value.encode())
            program.wait_for(f"done {value}")

    def outputs(self) -> set[int]:
        """Which outputs lie in the output topic."""
        consumer = Consumer({**client_of(self.kafka.bootstrap), "group.id": "reader"})
        try:
            _, end = consumer.get_watermark_offsets(TopicPartition(f"{self.topic}-out", 0), timeout=20)
            consumer.assign([TopicPartition(f"{self.topic}-out", 0, 0)])
            values = [message.value() or b"" for message in consumer.consume(end, timeout=20)] if end else []
            return {int(value.partition(b":")[0]) for value in values}
        finally:
            consumer.close()


@pytest.fixture
def stage(own_kafka: EmbeddedKafka, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The story that the test's name tells: `test_bare_p1_…`, `test_our_p1_…`."""
    _, kind, trap, *_ = request.node.name.split("_")
    made = Stage(own_kafka, trap, {"bare": "bare", "our": "ours"}[kind])
    yield made
    for program in made.programs:
        program.close()


@pytest.mark.nightly
def test_bare_p1_an_agent_that_raises_acknowledges_its_event(stage: Stage) -> None:
    program = stage.begin()
    stage.handled(program, "a")
    stage.append(b"b")
    stage.handled(program, "c")
    stage.loses(program, "b", 3)


def test_our_p1_an_agent_that_raises_ends_the_process_before_anything_is_committed(stage: Stage) -> None:
    program = stage.begin()
    stage.handled(program, "a")
    stage.reaches(1)
    stage.append(b"b")
    assert program.ended() == EXIT_FAILED
    assert stage.committed() == 1
    again = stage.begin("well")
    again.wait_for("done b")
    stage.reaches(2)


@pytest.mark.nightly
def test_bare_p2_an_event_not_acknowledged_is_committed_over_by_the_next(stage: Stage) -> None:
    program = stage.begin()
    stage.handled(program, "a")
    stage.reaches(1)
    stage.append(b"b")
    stage.handled(program, "c")
    stage.loses(program, "b", 3)


def test_our_p2_a_chunk_not_done_holds_back_the_ones_behind_it(stage: Stage) -> None:
    program = stage.begin()
    stage.handled(program, "a")
    stage.reaches(1)
    stage.append(b"b")
    program.wait_for("begin b")
    stage.handled(program, "c")
    stage.tried_to_commit(program)
    assert stage.committed() == 1
    program.end()
    stage.begin("well").wait_for("done b,c")
    stage.reaches(3)


@pytest.mark.nightly
def test_bare_p3_concurrency_commits_over_an_event_in_flight(stage: Stage) -> None:
    program = stage.begin()
    stage.handled(program, "a")
    stage.reaches(1)
    stage.append(b"b")
    program.wait_for("begin b")
    stage.handled(program, "c")
    stage.loses(program, "b", 3)


def test_our_p3_concurrency_waits_for_the_chunk_in_flight(stage: Stage) -> None:
    program = stage.begin()
    stage.handled(program, "a")
    stage.reaches(1)
    stage.append(b"b")
    program.wait_for("begin b")
    stage.handled(program, "c")
    stage.tried_to_commit(program)
    assert stage.committed() == 1
    program.end()
    stage.begin("well").wait_for("done b,c")
    stage.reaches(3)


@pytest.mark.nightly
def test_bare_p4_bytes_that_cannot_be_decoded_are_acknowledged_unseen(stage: Stage) -> None:
    program = stage.begin()
    stage.append(b'"a"', b"\xff{", b'"c"')
    stage.loses(program, "\ufffd{", 3)
    assert [line for line in program.lines if line.startswith("begin")] == ["begin a", "begin c"]


def test_our_p4_bytes_that_cannot_be_decoded_are_handed_to_the_agent(stage: Stage) -> None:
    program = stage.begin()
    stage.append(b'"a"', b"\xff{", b'"c"')
    stage.reaches(3)
    done = ",".join(line.removeprefix("done ") for line in program.lines if line.startswith("done"))
    assert done == '"a",\ufffd{,"c"'


@pytest.fixture
def frozen(stage: Stage) -> Iterator[Program]:
    """P5's scene: the agent has its event and is about to send, and the broker stands still."""
    program = stage.begin()
    stage.append(b"a")
    program.wait_for("begin a")
    stage.tried_to_commit(program)
    os.kill(stage.kafka.pid, signal.SIGSTOP)
    yield program
    os.kill(stage.kafka.pid, signal.SIGCONT)


@pytest.mark.nightly
def test_bare_p5_an_offset_is_committed_while_outputs_are_unsent(stage: Stage, frozen: Program) -> None:
    frozen.tell("go")
    frozen.wait_for("commit sent")
    frozen.end(signal.SIGKILL)
    os.kill(stage.kafka.pid, signal.SIGCONT)
    stage.loses(frozen, "none", 1)
    assert len(stage.outputs()) < OUTPUTS, "every output arrived: P5 is mended: see this file's head"


def test_our_p5_a_chunk_is_done_only_when_its_outputs_are_in_the_log(stage: Stage, frozen: Program) -> None:
    frozen.tell("go")
    stage.tried_to_commit(frozen)
    assert not frozen.said("done a")
    frozen.end(signal.SIGKILL)
    os.kill(stage.kafka.pid, signal.SIGCONT)
    assert stage.committed() == 0
    again = stage.begin("well")
    again.tell("go")
    again.wait_for("done a")
    stage.reaches(1)
    assert stage.outputs() == set(range(OUTPUTS))


@pytest.mark.nightly
def test_bare_p7_a_batch_that_raises_is_acknowledged_whole(stage: Stage) -> None:
    program = stage.begin()
    stage.append(b"a", b"b")
    program.wait_for("begin a,b")
    stage.loses(program, "a,b", 2)


def test_our_p7_a_batch_that_raises_is_handed_out_again(stage: Stage) -> None:
    program = stage.begin()
    stage.append(b"a", b"b")
    assert program.ended() == EXIT_FAILED
    assert stage.committed() == 0
    again = stage.begin("well")
    stage.reaches(2)
    assert "".join(line.removeprefix("done ") for line in again.lines if line.startswith("done")) in ("a,b", "ab")


@pytest.mark.nightly
def test_bare_p8_an_agent_cancelled_in_the_middle_acknowledges_its_event(stage: Stage) -> None:
    program = stage.begin()
    stage.handled(program, "a")
    stage.append(b"b")
    program.wait_for("begin b")
    program.process.send_signal(signal.SIGUSR1)
    stage.loses(program, "b", 2)


def test_our_p8_a_chunk_cancelled_in_the_middle_is_handed_out_again(stage: Stage) -> None:
    program = stage.begin()
    stage.handled(program, "a")
    stage.append(b"b")
    program.wait_for("begin b")
    program.process.send_signal(signal.SIGUSR1)
    stage.tried_to_commit(program)
    assert stage.committed() == 1
    assert program.end(signal.SIGTERM) == 0
    stage.begin("well").wait_for("done b")
    stage.reaches(2)


def test_the_two_kinds_run_the_version_of_faust_that_chunks_is_written_for() -> None:
    import faust

    pinned = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'"faust-streaming=={faust.__version__}"' in pinned
