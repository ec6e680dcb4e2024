"""What a race says, for people and for programs: ratios within each round, by their smallest, median and largest."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from tests.bench.contender import BASELINE, OURS, Contender
from tests.bench.running import Result

Results = Mapping[str, Sequence[Result]]
Row = tuple[str, ...]


def table(results: Results) -> str:
    """Each contender, and how many times as fast as plain Faust it is, where that ran too."""
    rows = [("contender", "events/s min / median / max", "x plain Faust min / median / max", "CPU µs/event", "RSS MB")]
    for name, found in results.items():
        against = _ratios(results, name, BASELINE)
        rows.append(
            (
                name,
                _three([each.rate for each in found], "{:,.0f}"),
                _three(against, "{:.1f}") if against else "–",
                f"{statistics.median(each.cpu_us for each in found):.0f}",
                f"{max(each.rss_mb for each in found):.0f}",
            )
        )
    return _aligned(rows)


def against_peers(results: Results, known: Mapping[str, Contender]) -> str:
    """Ours against each peer; empty when there is no such pair."""
    rows = [
        (
            f"{ours} ÷ {peer}",
            _three(_ratios(results, ours, peer), "{:.2f}"),
            _three(_cpu(results, ours, peer), "{:.2f}"),
        )
        for ours, peer in _pairs(results, known)
    ]
    head = ("ratio, min / median / max", "events/s: more is better", "CPU an event: less is better")
    return _aligned([head, *rows]) if rows else ""


def summary(results: Results, known: Mapping[str, Contender]) -> dict[str, object]:
    """For programs."""
    told: dict[str, object] = {
        name: {
            "events_per_second": [round(each.rate) for each in found],
            "cpu_us_per_event": [round(each.cpu_us, 1) for each in found],
            "rss_mb": [round(each.rss_mb) for each in found],
            "times_plain_faust": [round(each, 2) for each in _ratios(results, name, BASELINE)],
        }
        for name, found in results.items()
    }
    ratios = {
        f"{ours} / {peer}": {
            "events_per_second": [round(each, 3) for each in _ratios(results, ours, peer)],
            "cpu": [round(each, 3) for each in _cpu(results, ours, peer)],
        }
        for ours, peer in _pairs(results, known)
    }
    return {**told, "ratios": ratios}


def _pairs(results: Results, known: Mapping[str, Contender]) -> Iterator[tuple[str, str]]:
    """Ours and a peer: one worker against who works on one core, two against who works on two."""
    for peer in results:
        ours = OURS[known[peer].cores]
        if peer not in OURS.values() and ours in results:
            yield ours, peer


def _ratios(results: Results, name: str, other: str) -> list[float]:
    """How many times as fast as the other, round by round; empty when that did not run."""
    return [one.rate / base.rate for one, base in zip(results[name], results.get(other, ()), strict=False)]


def _cpu(results: Results, name: str, other: str) -> list[float]:
    return [one.cpu_us / base.cpu_us for one, base in zip(results[name], results[other], strict=True)]


def _three(values: Sequence[float], form: str) -> str:
    return " / ".join(form.format(value) for value in (min(values), statistics.median(values), max(values)))


def _aligned(rows: Sequence[Row]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
