"""The worker on a log that takes its time: `python -m tests.broker.slow_worker`, with the worker's own arguments."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from hub.log.event_log import Outgoing
from hub.log.kafka_writers import GatheringWriter
from hub.programs.processor import main

SECONDS = 1.0
append_at_once = GatheringWriter.append


def append(writer: GatheringWriter, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
    print("appending", flush=True)
    time.sleep(SECONDS)
    append_at_once(writer, records, timeout)


if __name__ == "__main__":
    GatheringWriter.append = append  # type: ignore[assignment,method-assign]  # what is slow is the log, not the worker
    sys.exit(main())
