"""What the processor remembers is spoiled, where it lies in the log: F37. It is noticed, and made anew from the log itself."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from hub.log.event_log import Outgoing, read_to_end
from hub.log.kafka_log import KafkaLog
from schemas.topics import STATE
from tests.acceptance.running import until
from tests.faults.row import Row
from tests.faults.stage import LONGEST, Stage
from tests.remade_topics import make_anew

CODES = ("HUB-E6020", "HUB-E6023")
"""The state cannot be read, or is gone."""


def spoiled(stage: Stage, chosen: random.Random) -> None:
    """Its records are overwritten or deleted; the processor meets that when it starts next, and ends rather than go on."""
    client = stage.hub.client
    said = stage.hub.data / "up.log"
    before = _alarms(said)
    with stage.without("processor"):
        chosen.choice((_overwrite, _delete))(client, chosen)
    stage.faults += 1
    deal = stage.load.push()
    # One that has not committed yet how far it is folds the log from its beginning anyway.
    until(lambda: _alarms(said) > before or stage.has_project(deal), LONGEST, "the processor tells, or goes on")
    if _alarms(said) > before:
        stage.hub.stop()
        mended = stage.hub.run("repair", "state")
        assert mended.returncode == 0, mended.stderr
        stage.hub.start()


def _alarms(said: Path) -> int:
    return sum(said.read_text("utf-8", "replace").count(code) for code in CODES)


def _overwrite(client: Mapping[str, str], chosen: random.Random) -> None:
    """Every case's last record is followed by one that says nothing."""
    log = KafkaLog(client)
    last = {r.key: r for batch in read_to_end(log, STATE.name, log.starts(STATE.name)) for r in batch if r.value}
    writer = log.writer()
    writer.append([Outgoing(STATE.name, key, chosen.randbytes(60), r.partition) for key, r in last.items() if key])
    writer.close()


def _delete(client: Mapping[str, str], _chosen: random.Random) -> None:
    """All of it is gone."""
    make_anew(client, STATE.name)


ROWS = [Row("F37", "the processor's state is spoiled or gone", 1, 10, spoiled)]
