"""A worker whose event loop stands still cannot notice that by a timer of that loop: a thread beside it ends the process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.ops.embedded_kafka import EmbeddedKafka
from hub.processor.halting import EXIT_STALLED
from tests.broker.program import until
from tests.broker.worker_stage import WorkerStage, lines
from tests.events import won

pytestmark = pytest.mark.broker


@pytest.fixture
def stage(broker: EmbeddedKafka, tmp_path: Path) -> Iterator[WorkerStage]:
    made = WorkerStage(broker, tmp_path)
    yield made
    made.close()


def test_a_worker_that_is_stuck_in_a_fold_is_ended_and_the_next_one_does_its_work(stage: WorkerStage) -> None:
    worker = stage.start("--patience", "2", module="tests.broker.blocked_worker")
    stage.append([won("stuck")])
    until(lambda: worker.said("blocked"), "it folds")
    assert worker.ended(60) == EXIT_STALLED
    assert lines(worker, "worker.stalled")
    worker = stage.start()
    stage.catches_up()
    assert len(stage.is_exact("stuck").commands) == 5
    assert worker.end(signal.SIGTERM, 20) == 0
