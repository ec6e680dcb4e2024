"""The worker with a fold that never returns: `python -m tests.broker.blocked_worker`, with the worker's own arguments."""

from __future__ import annotations

import sys
import time
from typing import Any

import hub.processor.app
from hub.programs.processor import main


def fold_chunk(*_given: Any) -> Any:
    print("blocked", flush=True)
    time.sleep(3600)


if __name__ == "__main__":
    hub.processor.app.fold_chunk = fold_chunk  # type: ignore[attr-defined,assignment]  # what is wrong is the fold, not its caller
    sys.exit(main())
