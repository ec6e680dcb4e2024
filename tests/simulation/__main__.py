"""`python -m tests.simulation --count 2000 --seed 7`: histories from that seed on, a table, and each that broke a promise."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.running import Table, play

SHOWN = 5
"""Failed histories that are shown whole."""


def main() -> int:
    """Play; the exit code is 1 when a promise did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument(
        "--seed", type=int, default=1, help="the first seed; a history has one seed, and 1 plays it again"
    )
    asked = parser.parse_args()
    table, began = Table(), time.monotonic()
    for seed in range(asked.seed, asked.seed + asked.count):
        outcome = play(seed)
        table.add(outcome)
        if outcome.broken and len(table.failed) <= SHOWN:
            print(outcome.shown(), flush=True)
    for line in table.lines(time.monotonic() - began):
        print(line)
    print("failed seeds:", *(outcome.seed for outcome in table.failed))
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(main())
