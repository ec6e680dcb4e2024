"""A thread that hangs takes its program with it, which says where, and the next run does its work; nothing is done twice."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.ops.embedded_kafka import EmbeddedKafka
from hub.runtime.watchdog import EXIT_STALLED
from tests.broker.connectors_stage import Stage, check_log
from tests.broker.program import until

pytestmark = pytest.mark.broker


@pytest.fixture
def stage(broker: EmbeddedKafka, tmp_path: Path) -> Iterator[Stage]:
    made = Stage.anew(tmp_path, broker.bootstrap)
    yield made
    made.stop_all()


def test_a_relay_that_hangs_is_ended_and_the_next_one_sends_what_it_had(stage: Stage) -> None:
    program = stage.start("relay.delivered:1:hang", patience=15.0)
    for number in range(5):
        assert stage.push(number) == 202
    until(lambda: not program.running, "the program ends", 60.0)
    assert program.process.returncode == EXIT_STALLED
    assert "HUB-E1017" in program.last_words()
    assert "failpoints.py" in program.last_words()
    program = stage.start()
    stage.drained()
    assert check_log(stage.log()) == {f"opportunity/crm/O-{number}" for number in range(5)}
    assert program.end(signal.SIGTERM, 30) == 0
