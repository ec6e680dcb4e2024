"""Who may do what is in doubt: leases that everybody finds free, offsets that the broker has forgotten: F36, F41."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from sqlalchemy import update

from hub.ledger.database import open_engine
from hub.ledger.leases import leases
from hub.runtime.program import is_ready
from tests.acceptance.running import until
from tests.faults.row import Row
from tests.faults.stage import LONGEST, Stage
from tests.ports import free_port

EVERY = 0.05
"""Seconds between two moments at which every lease is free."""


def stolen_leases(stage: Stage, chosen: random.Random) -> None:
    """Two connectors programs on one ledger, and every job is free again as soon as one has taken it. A fault is each time."""
    engine = open_engine(stage.ledger)
    with _second_program(stage, chosen):
        end = time.monotonic() + chosen.uniform(5.0, 10.0)
        while time.monotonic() < end:
            with engine.begin() as conn:
                taken = conn.execute(update(leases).where(leases.c.owner != "").values(owner="", expires=0.0)).rowcount
            stage.faults += taken
            time.sleep(EVERY)
    engine.dispose()


@contextlib.contextmanager
def _second_program(stage: Stage, chosen: random.Random) -> Iterator[None]:
    own = stage.folder / "second"
    told = {"HUB_DATA": str(own), "HUB_WEB_PORT": str(free_port()), "HUB_LEDGER": stage.ledger}
    own.mkdir(exist_ok=True)
    with (stage.folder / "second.log").open("ab") as out:
        program = subprocess.Popen(
            [sys.executable, "-m", "hub.programs.connectors", "--home", str(stage.hub.home)],
            env=stage.environment_of("connectors") | told, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        until(lambda: is_ready(own, "connectors", program.pid), LONGEST, "the second program is ready")
        yield
        assert program.poll() is None, "the second program has ended"
    finally:
        program.send_signal(chosen.choice((signal.SIGTERM, signal.SIGKILL)))
        program.wait(60)


def offsets_forgotten(stage: Stage, chosen: random.Random) -> None:
    """The processor's group is gone from the broker, with all that it had committed."""
    broker = AdminClient(stage.hub.client)
    with stage.without("processor"):
        until(lambda: _deleted(broker), LONGEST, "the group is deleted")
    stage.faults += 1


def _deleted(broker: AdminClient) -> bool:
    """Not before the broker has missed its member."""
    groups = [found.group_id for found in broker.list_consumer_groups().result(10).valid]
    try:
        for done in broker.delete_consumer_groups(groups).values():
            done.result(10)
    except KafkaException:
        return False
    return bool(groups)


ROWS = [
    Row("F36", "two programs find every lease free", 10, 200, stolen_leases),
    Row("F41", "the broker has forgotten the processor's offsets", 1, 5, offsets_forgotten, any_store=True),
]
