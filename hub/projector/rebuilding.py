"""Rebuilds or verifies boards: `python -m hub.projector.rebuilding --home DIR [--all | NAME …] [--verify]`, for `hub rebuild`.

`--begin-anew` empties them, for `hub repair`.

Writes JSON lines: `{"progress": {"board", "done", "total"}}` during a fold, `{"board": {…}}` for each finished board,
`{"error": …}` for each failed one. Exits 0 once every line is written; the calling command decides what they mean.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from hub.errors import HubError
from hub.home import Home
from hub.kit.projection import AnyProjection
from hub.log.kafka_log import KafkaLog
from hub.projector import registry
from hub.projector.rebuild import Comparison, Progress, rebuild
from hub.projector.store import BoardStore

PROGRESS_INTERVAL_S = 0.2
"""Minimum seconds between two progress lines."""
MAX_DIFFERING_KEYS = 100
"""Differing keys that a comparison lists."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Rebuild, verify or empty the boards, and write one line per result."""
    options = _arguments(arguments)
    unknown = sorted(set(options.boards) - set(registry.all_projections()))
    if unknown:
        write_line({"unknown": unknown, "known": sorted(registry.all_projections())})
        return 0
    try:
        home = Home.load(options.home)
        log, store = KafkaLog(home.kafka_client()), BoardStore(home.boards_url)
        store.prepare()
        if options.begin_anew:
            store.reset(registry.all_projections().values(), {})
            write_line({"begun_anew": sorted(registry.all_projections())})
            return 0
    except HubError as error:
        write_line({"error": error_value(error)})
        return 0
    for name in list(registry.all_projections()) if options.all else options.boards:
        _one(log, store, registry.all_projections()[name], options.verify)
    return 0


def _one(log: KafkaLog, store: BoardStore, projection: AnyProjection, verify: bool) -> None:
    try:
        comparison = rebuild(log, store, projection, verify=verify, progress=progress_writer(projection.name))
    except HubError as error:
        write_line({"error": {"board": projection.name, **error_value(error)}})
        return
    write_line({"board": comparison_value(comparison)})


def comparison_value(comparison: Comparison) -> dict[str, Any]:
    """A comparison as a JSON object. `live` is None when there was no board to compare."""
    return {
        "board": comparison.board,
        "records": comparison.records,
        "rows": comparison.rows,
        "built": comparison.built,
        "live": comparison.live,
        "equal": comparison.equal,
        "differing": list(comparison.differing[:MAX_DIFFERING_KEYS]),
        "differing_count": len(comparison.differing),
    }


def error_value(error: HubError) -> dict[str, Any]:
    """An error as its code and facts, so that the caller can render it in its reader's language."""
    return {"code": error.code, "seen": error.seen}


def progress_writer(board: str) -> Progress:
    """A callback that writes progress lines, at most one per PROGRESS_INTERVAL_S."""
    written_at = [0.0]

    def progress(done: int, total: int) -> None:
        if done >= total or time.monotonic() - written_at[0] > PROGRESS_INTERVAL_S:
            written_at[0] = time.monotonic()
            write_line({"progress": {"board": board, "done": done, "total": total}})

    return progress


def write_line(value: Mapping[str, Any]) -> None:
    """Write one JSON line to stdout."""
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
