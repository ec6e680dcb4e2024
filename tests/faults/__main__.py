"""`python -m tests.faults [ROW …] [--count N] [--seed N] [--tenth | --full] [--store sqlite|postgresql] [--resume FILE]`.

Rows that are named, and all with --full (their nightly counts) or --tenth, are played one by one, each on a hub of its own; without
any of these, a sample of every row is played on one hub a store. With --resume, what a file holds already is not played again
and each outcome is added to it. Ends with one table; 0 when every row held.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from tests.faults.playing import play
from tests.faults.row import STORES, Row, all_rows

COLUMNS = (
    "row",
    "store",
    "faults",
    "events",
    "lost",
    "doubled",
    "stuck",
    "recovery p50/max s",
    "largest MB",
    "seconds",
    "held",
)


def main() -> int:
    """Play and tell."""
    known = all_rows()
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(known)}; all by default")
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--full", action="store_true", help="the nightly counts")
    parser.add_argument("--tenth", action="store_true", help="a tenth of them, of every row on every store")
    parser.add_argument("--store", choices=STORES, action="append")
    parser.add_argument("--resume", type=Path)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was booted is ended
    if unknown := set(asked.rows) - set(known):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    done = _played(asked.resume)
    for rows, store in _runs(known, asked):
        left = [(row, count) for row, count in rows if (row.name, store, asked.seed) not in map(_which, done)]
        if left:
            done += _play(left, asked.seed, store, asked.resume)
    print(table(done))
    return 0 if all(each["held"] for each in done) else 1


def _runs(known: Mapping[str, Row], asked: argparse.Namespace) -> Iterator[tuple[list[tuple[Row, int]], str]]:
    """Which rows are played on one hub, with how many faults, and on which store."""
    chosen = [(row, _count(row, asked)) for row in known.values() if not asked.rows or row.name in asked.rows]
    sampling = not (asked.rows or asked.full or asked.tenth)
    together = _together(chosen) if sampling else [[each] for each in chosen]
    for store, rows in itertools.product(asked.store or STORES, together):
        sampled = sampling and store != STORES[0]
        fitting = [(row, count) for row, count in rows if store in row.stores and not (sampled and row.any_store)]
        if fitting:
            yield fitting, store


def _count(row: Row, asked: argparse.Namespace) -> int:
    if asked.count:
        return int(asked.count)
    if asked.full:
        return row.nightly
    return max(row.sample, -(-row.nightly // 10)) if asked.tenth else row.sample


def _together(chosen: Sequence[tuple[Row, int]]) -> list[list[tuple[Row, int]]]:
    """Those that need the same are played on the same hub."""
    needs = dict.fromkeys(row.needs for row, _ in chosen)
    return [[(row, count) for row, count in chosen if row.needs == need] for need in needs]


def _which(outcome: dict[str, Any]) -> tuple[str, str, int]:
    return outcome["row"], outcome["store"], outcome["seed"]


def _play(rows: Sequence[tuple[Row, int]], seed: int, store: str, kept: Path | None) -> list[dict[str, Any]]:
    told = [outcome.as_json() for outcome in play(rows, seed, store)]
    for each in told:
        print(orjson.dumps(each).decode(), file=sys.stderr, flush=True)
        if kept is not None:
            with kept.open("ab") as out:
                out.write(orjson.dumps(each) + b"\n")
    return told


def _played(kept: Path | None) -> list[dict[str, Any]]:
    if kept is None or not kept.exists():
        return []
    return [orjson.loads(line) for line in kept.read_bytes().splitlines() if line]


def table(outcomes: Sequence[dict[str, Any]]) -> str:
    """One line for each outcome."""
    rows = [COLUMNS, *(_cells(outcome) for outcome in outcomes)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _cells(outcome: dict[str, Any]) -> tuple[str, ...]:
    recovery, sizes = outcome["recovery"], outcome["peak_mb"]
    largest = max(sizes, key=sizes.__getitem__) if sizes else ""
    numbers = [str(outcome[name]) for name in ("faults", "events", "lost", "doubled", "stuck")]
    taken = f"{recovery['p50']} / {recovery['max']}" if recovery else "–"
    size = f"{largest} {sizes[largest]:.0f}" if sizes else "–"
    held = "yes" if outcome["held"] else "NO"
    return (outcome["row"], outcome["store"], *numbers, taken, size, f"{outcome['seconds']:.0f}", held)


if __name__ == "__main__":
    sys.exit(main())
