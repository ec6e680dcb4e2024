"""A row of the fault matrix, and what became of playing it."""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.acceptance.outside import Mischief, well_behaved
from tests.faults import rows
from tests.faults.stage import Stage

STORES = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Row:
    """`fault` injects one fault into a hub under load and returns when the hub has recovered from it.

    `sample` and `nightly` are how many are injected, all of them into one hub: faults add up. `stores` are those it is played
    on. `checks` says what must hold at the end besides the counts and the audit; it returns what does not.
    """

    name: str
    title: str
    sample: int
    nightly: int
    fault: Callable[[Stage, random.Random], None]
    mischief: Callable[[int], Mischief] = lambda seed: well_behaved
    """What the outside systems do wrong meanwhile, by the seed."""
    per_second: float = 10.0
    stores: tuple[str, ...] = STORES
    repeats: tuple[int, ...] = (1, 1, 2, 3)
    """How often a deal is pushed: one of these, by chance."""
    shuffled: bool = False
    """Whether older and newer news of a deal come before and after its being won."""
    dated: bool = False
    """Whether deals say that they were won long ago, or in times to come."""
    passing: int = 503
    """A status that senders may meet, and push again."""
    needs: str = ""
    """`disk`: a file system of its own below everything. `clock`: a clock that can be turned. `haste`: a hub that forgets cases and
    trims its ledger after a second. Such rows are sampled apart."""
    checks: Callable[[Stage], list[str]] = lambda stage: []
    any_store: bool = False
    """Whether the store has little part in it: a sample plays it on one only."""


@dataclass
class Outcome:
    """How it went.

    `lost` and `doubled` count effects, of all rows that were played on the same hub; `stuck` counts recoveries that took
    longer than they may.
    """

    row: str
    store: str
    seed: int
    faults: int = 0
    events: int = 0
    lost: int = 0
    doubled: int = 0
    stuck: int = 0
    recovery: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    an_hour: dict[str, dict[str, float]] = field(default_factory=dict)
    """By how many MB and open files a program would grow in an hour, where it ran for half of one."""
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether the row holds."""
        return not (self.lost or self.doubled or self.stuck or self.wrong)

    def as_json(self) -> dict[str, Any]:
        """All of it, for the record."""
        return {**asdict(self), "held": self.held}


def all_rows() -> Mapping[str, Row]:
    """Every row by its name, in the order of the matrix."""
    modules = [
        importlib.import_module(f"{rows.__name__}.{found.name}") for found in pkgutil.iter_modules(rows.__path__)
    ]
    found = {row.name: row for module in modules for row in module.ROWS}
    return dict(sorted(found.items(), key=lambda entry: (entry[0][0], int(entry[0][1:].rstrip("abcdefgh")), entry[0])))
