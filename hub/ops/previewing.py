"""Maps parked deliveries again without storing anything: `python -m hub.ops.previewing --home DIR NUMBER …`.

`hub parked preview` calls it. Writes one JSON line an entry: its `ref` with the `events` that the mapping gives now, or with the
`error` that would park it again. Calls no system.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hub.config.yaml_places import mask
from hub.errors import HubError, RejectedError
from hub.home import Home
from hub.intake.deferred_intake import reread
from hub.intake.intake import Intake, Item, ParkReason
from hub.kit import registry
from hub.kit.connector import Connector
from hub.ledger import parked
from hub.ledger.ledger import Ledger
from hub.ops.connector_checks import as_value, write_line
from hub.people_watcher import PeopleWatcher
from hub.runtime.clock import SystemClock


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one JSON line an entry; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hub.ops.previewing")
    parser.add_argument("numbers", nargs="*", type=int)
    parser.add_argument("--home", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        for line in previews(Home.load(options.home), options.numbers):
            write_line(line)
    except HubError as error:
        write_line({"error": as_value(error)})
    return 0


def previews(home: Home, numbers: Sequence[int]) -> Iterator[Mapping[str, Any]]:
    """The events that the current mapping gives for each of these entries."""
    connectors = {name: registry.connect(instance) for name, instance in home.instances.items()}
    ledger = Ledger(home.ledger_url)
    try:
        yield from of_entries(ledger, connectors, PeopleWatcher(home), numbers, home.secrets)
    finally:
        ledger.close()


def of_entries(
    ledger: Ledger, connectors: Mapping[str, Connector], staff: Any, numbers: Sequence[int], secrets: set[str]
) -> Iterator[Mapping[str, Any]]:
    """As `previews`, with a ledger, connectors and people that are open already."""
    intake = Intake(ledger, staff, SystemClock())
    for number in numbers:
        with ledger.reading() as conn:
            entry = parked.get(conn, number)
        if entry is not None:
            yield {"ref": entry.ref, **_preview(reread(intake, connectors, entry), secrets)}


def _preview(items: Sequence[Item], secrets: set[str]) -> Mapping[str, Any]:
    events = []
    for outcome, _ in items:
        if isinstance(outcome, ParkReason):
            seen = {name: mask(str(fact), secrets) for name, fact in outcome.seen.items()}
            return {"error": as_value(RejectedError(outcome.code, place=outcome.place, **seen))}
        events.append({name: getattr(outcome, name) for name in ("id", "type", "subject", "data")})
    return {"events": events}


if __name__ == "__main__":
    sys.exit(main())
