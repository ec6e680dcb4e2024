"""What a run cost: memory and processor time by process, disk by event, waits."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

TICKS = os.sysconf("SC_CLK_TCK")


def memory(pids: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """MiB now and at most, by process; of PostgreSQL the sum over its processes, each page counted for its share."""
    return {name: _memory(pid) if name != "postgres" else _family(pid) for name, pid in sorted(pids.items())}


def _memory(pid: int) -> dict[str, int]:
    told = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return {"now": int(told["VmRSS"].split()[0]) // 1024, "most": int(told["VmHWM"].split()[0]) // 1024}


def _family(pid: int) -> dict[str, int]:
    return {"now": sum(map(_share, [pid, *_children(pid)])) // 1024}


def _share(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it ended meanwhile
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Processor seconds so far, by process, its ended children included."""
    return {name: sum(map(_ticks, [pid, *_children(pid)])) / TICKS for name, pid in pids.items()}


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(fields[at]) for at in (11, 12, 13, 14))


def quantiles(waits: Sequence[float]) -> dict[str, float]:
    """Seconds: half, 99 of a hundred, and all."""
    if len(waits) < 2:
        return {}
    cuts = statistics.quantiles(waits, n=100)
    return {"p50": round(cuts[49], 3), "p99": round(cuts[98], 3), "most": round(max(waits), 3)}


def disk(folder: Path, environment: Mapping[str, str], events: int) -> dict[str, Any]:
    """Bytes an event, by where they lie: each topic on one broker, the ledger, the boards."""
    topics: dict[str, int] = {}
    for file in (folder / "kafka" / "kafka-1" / "log").glob("hub.*/*.log"):
        topic = file.parent.name.rpartition("-")[0]
        topic = "hub.view.*" if topic.startswith("hub.view.") else topic
        topics[topic] = topics.get(topic, 0) + file.stat().st_size
    stores = {name: _database_bytes(environment[name]) for name in ("HUB_LEDGER", "HUB_BOARDS")}
    sizes = {**topics, "ledger": stores["HUB_LEDGER"], "boards": stores["HUB_BOARDS"]}
    return {
        name: {"mib": round(size / 2**20, 1), "bytes_per_event": round(size / events)} for name, size in sizes.items()
    }


def _database_bytes(url: str) -> int:
    engine = create_engine(url)
    try:
        with engine.connect() as conn:
            # Less what an empty database takes, which grows with nothing.
            sizes = "SELECT pg_database_size(current_database()) - pg_database_size('template1')"
            return int(conn.execute(text(sizes)).scalar_one())
    finally:
        engine.dispose()
