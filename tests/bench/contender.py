"""What a contender says of itself: one file each in `contenders/` with a `CONTENDER` in it, and nothing else has to know of it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

BASELINE = "plain-faust"
"""The contender that every ratio is told against."""


@dataclass(frozen=True)
class Contender:
    """A program that does won2task. It reads `events`, writes `views` and `commands`, and runs until SIGTERM."""

    name: str
    deals: int
    """How many a round: enough for some seconds."""
    events: str
    views: str
    commands: str
    more: Mapping[str, Mapping[str, str]]
    """Every other topic that it needs, with the broker's settings for it."""
    group: str
    command: Callable[[str, Path], list[str]]
    """The command line, given the broker's address and a folder of its own."""
    environment: Callable[[str, Path], Mapping[str, str]] = field(default=lambda bootstrap, folder: {})
    is_command: Callable[[bytes], bool] = field(default=lambda value: True)
    """Whether a record of `commands` is one: other things may travel there."""


def contenders() -> dict[str, Contender]:
    """All that there are, by name; the baseline first."""
    package = importlib.import_module("tests.bench.contenders")
    modules = [
        importlib.import_module(f"{package.__name__}.{each.name}") for each in pkgutil.iter_modules(package.__path__)
    ]
    found = [module.CONTENDER for module in modules]
    return {each.name: each for each in sorted(found, key=lambda each: (each.name != BASELINE, each.name))}
