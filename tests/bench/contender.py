"""What a contender says of itself: a file in `contenders/` with its `CONTENDERS`, and nothing else has to know of it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BASELINE = "plain-faust"
"""The contender that every ratio is told against."""
OURS = {1: "hub", 2: "hub-2"}
"""The product, by how many cores a peer may use: so many workers race against it."""


@dataclass(frozen=True)
class Contender:
    """Programs that do won2task. They read `events`, write `views` and `commands`, and run until SIGTERM."""

    name: str
    deals: int
    """How many a round: enough for some seconds."""
    events: str
    views: str
    commands: str
    more: Mapping[str, Mapping[str, str]]
    """Every other topic that it needs, with the broker's settings for it."""
    group: str
    programs: Callable[[str, Path], Sequence[Sequence[str]]]
    """A command line for each program, given the broker's address and a folder of its own."""
    environment: Callable[[str, Path], Mapping[str, str]] = field(default=lambda bootstrap, folder: {})
    is_command: Callable[[bytes], bool] = field(default=lambda value: True)
    """Whether a record of `commands` is one: other things may travel there."""
    prepare: Callable[[], object] = field(default=lambda: None)
    """Makes, once and before the race, what its programs need: an environment, a compiled class."""
    cores: int = 1
    """How many it works on, with a member of its group for each: one, when it is a Python process."""
    warm_up: float = 0.05
    """The share of the events, at the beginning, that is not timed: connections are made, caches are filled, code is compiled."""
    passes_through: bool = False
    """It sends each record on as it came, repeats too, and no commands: the ceiling, not a peer."""


def contenders() -> dict[str, Contender]:
    """All that there are, by name; the baseline first."""
    package = importlib.import_module("tests.bench.contenders")
    modules = [
        importlib.import_module(f"{package.__name__}.{each.name}") for each in pkgutil.iter_modules(package.__path__)
    ]
    found: list[Contender] = [contender for module in modules for contender in module.CONTENDERS]
    return {each.name: each for each in sorted(found, key=lambda each: (each.name != BASELINE, each.name))}
