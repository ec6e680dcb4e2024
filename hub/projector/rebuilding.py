"""Rebuilds or verifies boards: `python -m hub.projector.rebuilding --home DIR [--all | NAME …] [--verify]`, for `hub rebuild`.

With `--begin-anew` they are emptied, for `hub repair`.

Says JSON lines: `{"progress": {"board", "done", "total"}}` on the way, `{"board": {…}}` for each that is done, `{"error": …}` for
one that could not be. Exit 0 once all is said; who asked decides what it means.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from hub.config.home import Home
from hub.errors import HubError
from hub.kit.projection import AnyProjection
from hub.log.kafka_log import KafkaLog
from hub.projector import registry
from hub.projector.rebuild import Comparison, Progress, rebuild
from hub.projector.store import BoardStore

EVERY = 0.2
"""Seconds between two words about progress."""
SHOWN = 100
"""Differing keys that are named."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what was asked, and say what came of it."""
    asked = _arguments(arguments)
    unknown = sorted(set(asked.boards) - set(registry.all_projections()))
    if unknown:
        tell({"unknown": unknown, "known": sorted(registry.all_projections())})
        return 0
    try:
        home = Home.load(asked.home)
        log, store = KafkaLog(home.kafka_client()), BoardStore(home.boards_url)
        store.prepare()
        if asked.begin_anew:
            store.begin_anew(registry.all_projections().values(), {})
            tell({"begun_anew": sorted(registry.all_projections())})
            return 0
    except HubError as error:
        tell({"error": as_value(error)})
        return 0
    for name in list(registry.all_projections()) if asked.all else asked.boards:
        _one(log, store, registry.all_projections()[name], asked.verify)
    return 0


def _one(log: KafkaLog, store: BoardStore, projection: AnyProjection, verify: bool) -> None:
    try:
        told = rebuild(log, store, projection, verify=verify, progress=teller(projection.name))
    except HubError as error:
        tell({"error": {"board": projection.name, **as_value(error)}})
        return
    tell({"board": comparison(told)})


def comparison(told: Comparison) -> dict[str, Any]:
    """A comparison as JSON has it. `live` None: there was no board to compare."""
    return {
        "board": told.board,
        "records": told.records,
        "rows": told.rows,
        "built": told.built,
        "live": told.live,
        "equal": told.equal,
        "differing": list(told.differing[:SHOWN]),
        "differing_count": len(told.differing),
    }


def as_value(error: HubError) -> dict[str, Any]:
    """An error that another program can say in its reader's language."""
    return {"code": error.code, "seen": error.seen}


def teller(board: str) -> Progress:
    """Tells of progress, not too often."""
    last = [0.0]

    def progress(done: int, total: int) -> None:
        if done >= total or time.monotonic() - last[0] > EVERY:
            last[0] = time.monotonic()
            tell({"progress": {"board": board, "done": done, "total": total}})

    return progress


def tell(value: Mapping[str, Any]) -> None:
    """Say one line."""
    sys.stdout.buffer.write(orjson.dumps(value, default=str) + b"\n")
    sys.stdout.buffer.flush()


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hub.projector.rebuilding")
    parser.add_argument("boards", nargs="*")
    parser.add_argument("--home", type=Path, default=Path())
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--begin-anew", action="store_true", help="empty them all, and forget which log they are of")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
