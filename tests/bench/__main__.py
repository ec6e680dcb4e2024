"""`python -m tests.bench [NAME …] [--rounds N] [--share S]`: contenders in turn on one embedded broker.

Each round of each is checked for exact outputs. Prints two tables, and ends with one JSON object on the last line. Ratios are told
within a round, then their smallest, median and largest: the machine's mood changes from minute to minute, and both had the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import orjson

from hub.errors import HubError
from hub.ops.embedded_kafka import BrokerPlan
from tests.bench.contender import Contender, contenders
from tests.bench.environments import MissingToolError
from tests.bench.running import Result, run
from tests.bench.tables import Results, against_peers, summary, table
from tests.bench.won2task import load
from tests.open_broker import OpenBroker

KNOWN = contenders()


def main() -> int:
    """Race; 0 when every round of every contender was exact."""
    chosen = _options()
    racing = [each for each in KNOWN.values() if each.name in (chosen.names or KNOWN)]
    try:
        for contender in racing:
            contender.prepare()
    except MissingToolError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except HubError as error:
        sys.stderr.write(f"{error.code} {error.message()}\n  → {error.fix()}\n")
        return 1
    racing = [replace(each, deals=max(10, int(each.deals * chosen.share))) for each in racing]
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as folder:
        broker = OpenBroker(BrokerPlan(Path(folder) / "kafka", port=0, at_its_limits=True))
        try:
            results = race(broker.start(), racing, chosen.rounds, Path(folder))
        finally:
            broker.stop()
    print("\n\n".join(filter(None, (table(results), against_peers(results, KNOWN)))))
    print(orjson.dumps(summary(results, KNOWN)).decode())
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(KNOWN)}; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--share", type=float, default=1.0, help="of each one's events; a small one proves and measures nothing"
    )
    chosen = parser.parse_args()
    if unknown := sorted(set(chosen.names) - set(KNOWN)):
        parser.error(f"no such contender: {', '.join(unknown)}")
    return chosen


def race(bootstrap: str, racing: Sequence[Contender], rounds: int, folder: Path) -> Results:
    """A, B, C, A, B, C, …"""
    loads = {deals: load(deals) for deals in {contender.deals for contender in racing}}
    results = defaultdict[str, list[Result]](list)
    for number in range(1, rounds + 1):
        for contender in racing:
            found = run(bootstrap, contender, loads[contender.deals], folder / f"{contender.name}-{number}")
            results[contender.name].append(found)
            said = f"{found.rate:,.0f} events/s, {found.cpu_us:.0f} µs CPU an event, {found.rss_mb:.0f} MB"
            print(f"round {number} {contender.name}: {said}", file=sys.stderr, flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
