"""What a night plays: tests with their large counts, fuzz of whatever comes from outside, histories, and the rows of faults."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.faults.row import all_rows
from tests.fuzzing import VARIABLE

Counts = Literal["tenth", "full"]
FUZZ = {"tenth": 100_000, "full": 1_000_000}
HISTORIES = {"tenth": 2_000, "full": 20_000}
DOOR = "tests/unit/hub/web/test_door_fuzz.py"
FILES = "tests/unit/hub/rules/test_fuzz.py"
TARGETS: Mapping[str, tuple[str, ...]] = {
    "door": (DOOR,),
    "mappings": ("tests/unit/connectors/http/test_any_mapping.py",),
    "hub.yaml": (FILES, "-k", "hub.yaml"),
    "people.yaml": (FILES, "-k", "people.yaml"),
    "calendar.yaml": (FILES, "-k", "calendar.yaml"),
    "rules": (FILES, "-k", "rules/a.yaml"),
    "tests of rules": (FILES, "-k", "rules/a.test.yaml"),
    ".env": (FILES, "-k", ".env"),
    "log records": ("tests/unit/test_hostile_log.py",),
}
"""S22: what is fuzzed, and by which tests."""


@dataclass(frozen=True)
class Part:
    """One line of the night's table. It holds when its command ends with 0."""

    name: str
    count: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def mark(self) -> tuple[str, str]:
        """What makes it the same in another night."""
        return self.name, self.count


def parts(counts: Counts) -> Iterator[Part]:
    """All of them, quick ones first."""
    yield Part("tests that are marked nightly", "all", _pytest("-m", "nightly"))
    for name, tests in TARGETS.items():
        number = str(FUZZ[counts])
        yield Part(f"S22 {name}", number, _pytest(*tests), {VARIABLE: number})
    histories = str(HISTORIES[counts])
    yield Part("simulation", histories, _module("tests.simulation", "--count", histories))
    for row in all_rows().values():
        faults = row.nightly if counts == "full" else max(row.sample, -(-row.nightly // 10))
        for store in row.stores:
            command = _module("tests.faults", row.name, "--store", store, "--count", str(faults))
            yield Part(f"{row.name} {store}: {row.title}", str(faults), command)


def _pytest(*arguments: str) -> tuple[str, ...]:
    return _module("pytest", *arguments)


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *arguments)
