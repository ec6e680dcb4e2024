"""What parked deliveries would tell now: `python -m hub.ops.previewing --home DIR NUMBER …`, for `hub parked preview`.

Says one JSON line an entry: its `ref` with its `events`, or with the `error` that would park it again. Nothing is kept, and no
system is asked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hub.config.home import Home
from hub.config.yaml_places import mask
from hub.errors import HubError, RejectedError
from hub.intake.deferred_intake import read_again
from hub.intake.intake import Intake, Item, Refused
from hub.kit import registry
from hub.kit.connector import Connector
from hub.ledger import parked
from hub.ledger.ledger import Ledger
from hub.ops.connector_checks import as_value, tell
from hub.people import PeopleWatcher
from hub.runtime.clock import SystemClock


def main(arguments: Sequence[str] | None = None) -> int:
    """Tell of each entry."""
    parser = argparse.ArgumentParser(prog="python -m hub.ops.previewing")
    parser.add_argument("numbers", nargs="*", type=int)
    parser.add_argument("--home", type=Path, required=True)
    asked = parser.parse_args(arguments)
    try:
        for line in previews(Home.load(asked.home), asked.numbers):
            tell(line)
    except HubError as error:
        tell({"error": as_value(error)})
    return 0


def previews(home: Home, numbers: Sequence[int]) -> Iterator[Mapping[str, Any]]:
    """What each of these entries would tell by the mapping as it is now."""
    connectors = {name: registry.connect(instance) for name, instance in home.instances.items()}
    ledger = Ledger(home.ledger_url)
    try:
        yield from of_entries(ledger, connectors, PeopleWatcher(home), numbers, home.secrets)
    finally:
        ledger.close()


def of_entries(
    ledger: Ledger, connectors: Mapping[str, Connector], staff: Any, numbers: Sequence[int], secrets: set[str]
) -> Iterator[Mapping[str, Any]]:
    """As `previews`, with parts that are there already."""
    intake = Intake(ledger, staff, SystemClock())
    for number in numbers:
        with ledger.reading() as conn:
            entry = parked.get(conn, number)
        if entry is not None:
            yield {"ref": entry.ref, **_told(read_again(intake, connectors, entry), secrets)}


def _told(items: Sequence[Item], secrets: set[str]) -> Mapping[str, Any]:
    events = []
    for told, _ in items:
        if isinstance(told, Refused):
            seen = {name: mask(str(fact), secrets) for name, fact in told.seen.items()}
            return {"error": as_value(RejectedError(told.code, place=told.place, **seen))}
        events.append({name: getattr(told, name) for name in ("id", "type", "subject", "data")})
    return {"events": events}


if __name__ == "__main__":
    sys.exit(main())
