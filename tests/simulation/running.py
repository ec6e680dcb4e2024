"""Plays histories and says what came of each."""

from __future__ import annotations

import functools
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.checks import check
from tests.simulation.world import World, history

SEEDS = Path(__file__).with_name("seeds.txt")
"""A line for each seed that once failed: the seed, and what it found."""


@dataclass(frozen=True)
class Outcome:
    """How one history went. `broken` is empty when every promise held."""

    seed: int
    world: World
    broken: tuple[str, ...] = ()

    def shown(self) -> str:
        """The history, compactly: who moved, † who died, what went wrong at which boundary."""
        told = "\n  ".join(self.broken)
        return f"seed {self.seed}: {self.world.rates}\n  {' '.join(self.world.chance.story)}\n  {told}"


def play(seed: int) -> Outcome:
    """One history, from its seed to its checks."""
    world = history(seed)
    try:
        world.run()
        return Outcome(seed, world, tuple(map(str, check(world))))
    except Exception as error:
        where = "".join(traceback.format_exception(error)[-2:])
        return Outcome(seed, world, (f"{type(error).__name__}: {error}\n{where}",))


@dataclass
class Table:
    """What many histories came to."""

    outcomes: int = 0
    failed: list[Outcome] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        """Count one in."""
        world = outcome.world
        self.outcomes += 1
        self.counts += Counter(world.chance.counts)
        self.counts["turns"] += world.turns
        self.counts["events"] += sum(
            len(records) for (topic, _), records in world.log.records.items() if topic == "hub.events"
        )
        self.counts["effects"] += len(world.pm.order) + len(world.erp.order)
        self.counts["poison"] += world.poisoned
        self.counts["settled by hand"] += world.settled
        if outcome.broken:
            self.failed.append(outcome)

    def lines(self, seconds: float) -> Iterable[str]:
        """For people."""
        yield f"{'histories':>16}  {self.outcomes}"
        yield f"{'a minute':>16}  {self.outcomes * 60 / max(seconds, 0.001):.0f}"
        for name, number in sorted(self.counts.items()):
            yield f"{name:>16}  {number}"
        yield f"{'failed':>16}  {len(self.failed)}"
        promises = Counter(broken.splitlines()[0].partition(": ")[0] for o in self.failed for broken in o.broken)
        for promise, number in promises.most_common():
            yield f"{number:>16}  {promise}"


def busy_world() -> World:
    """A world at rest in which deals were won, work was done and messages were sent: something to harm."""
    world = history(_busy_seed())
    world.run()
    return world


@functools.cache
def _busy_seed() -> int:
    return next(seed for seed in range(70_001, 71_000) if _is_busy(play(seed)))


def _is_busy(outcome: Outcome) -> bool:
    world = outcome.world
    kinds = {command.type for _, command in world.pm.objects.values()}
    relayed = [found for (topic, _), found in world.log.records.items() if topic == "hub.events" and len(found) > 8]
    return not outcome.broken and len(world.pm.order) > 3 and "project.create" in kinds and bool(relayed)


def kept_seeds() -> list[int]:
    """The seeds that once failed."""
    lines = SEEDS.read_text("utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]
