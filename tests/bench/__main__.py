"""`python -m tests.bench [NAME …] [--rounds N]`: contenders in turn on one embedded broker, each round checked for exact outputs.

Prints a table, and ends with one JSON object on the last line. Ratios are told against plain Faust of the same round: the
machine's mood changes from minute to minute, and both had the same.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from hub.embedded_kafka import BrokerPlan, EmbeddedKafka
from tests.bench.contender import BASELINE, Contender, contenders
from tests.bench.running import Result, run
from tests.bench.won2task import load

Results = Mapping[str, Sequence[Result]]


def main() -> int:
    """Race; 0 when every round of every contender was exact."""
    known = contenders()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(known), help=f"of {', '.join(known)}; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    racing = [known[name] for name in known if name in chosen.names]
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as folder:
        broker = EmbeddedKafka(BrokerPlan(Path(folder) / "kafka", port=0))
        try:
            results = race(broker.start(), racing, chosen.rounds, Path(folder))
        finally:
            broker.stop()
    print(table(results))
    print(orjson.dumps(summary(results)).decode())
    return 0


def race(bootstrap: str, racing: Sequence[Contender], rounds: int, folder: Path) -> Results:
    """A, B, C, A, B, C, …"""
    loads = {contender.name: load(contender.deals) for contender in racing}
    results = defaultdict[str, list[Result]](list)
    for number in range(1, rounds + 1):
        for contender in racing:
            found = run(bootstrap, contender, loads[contender.name], folder / f"{contender.name}-{number}")
            results[contender.name].append(found)
            said = f"{found.rate:,.0f} events/s, {found.cpu_us:.0f} µs CPU an event, {found.rss_mb:.0f} MB"
            print(f"round {number} {contender.name}: {said}", file=sys.stderr, flush=True)
    return results


def ratios(results: Results, name: str) -> list[float] | None:
    """How many times as fast as plain Faust, round by round; None when that did not run."""
    if BASELINE not in results:
        return None
    return [one.rate / base.rate for one, base in zip(results[name], results[BASELINE], strict=True)]


def table(results: Results) -> str:
    """For people."""
    rows = [("contender", "events/s min / median / max", "x plain Faust min / median / max", "CPU µs/event", "RSS MB")]
    for name, found in results.items():
        against = ratios(results, name)
        rows.append(
            (
                name,
                _three([each.rate for each in found], "{:,.0f}"),
                _three(against, "{:.1f}") if against else "–",
                f"{statistics.median(each.cpu_us for each in found):.0f}",
                f"{max(each.rss_mb for each in found):.0f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def summary(results: Results) -> dict[str, object]:
    """For programs."""
    return {
        name: {
            "events_per_second": [round(each.rate) for each in found],
            "cpu_us_per_event": [round(each.cpu_us, 1) for each in found],
            "rss_mb": [round(each.rss_mb) for each in found],
            "times_plain_faust": [round(each, 2) for each in ratios(results, name) or []],
        }
        for name, found in results.items()
    }


def _three(values: Sequence[float], form: str) -> str:
    return " / ".join(form.format(value) for value in (min(values), statistics.median(values), max(values)))


if __name__ == "__main__":
    sys.exit(main())
