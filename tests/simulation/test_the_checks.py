"""The checks of the simulation can fail: each promise, broken by hand in a world at rest, is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hub.ledger import commands
from hub.projector import registry
from tests.simulation.checks import check
from tests.simulation.running import busy_world
from tests.simulation.world import World


def _lose_an_event(world: World) -> None:
    records = next(found for (topic, _), found in world.log.records.items() if topic == "hub.events" and len(found) > 8)
    records[:] = [record for record in records if b'"sequence":"2"' not in (record.value or b"")]
    records[:] = [record._replace(offset=at) for at, record in enumerate(records)]


def _double_an_effect(world: World) -> None:
    world.pm.effects[world.pm.order[0]] += 1


def _forget_an_effect(world: World) -> None:
    del world.pm.effects[world.pm.order[0]]


def _swap_effects(world: World) -> None:
    world.pm.order.reverse()


def _drop_a_command(world: World) -> None:
    with world.ledgers.engine.begin() as conn:
        conn.execute(commands.commands.delete().where(commands.commands.c.id == world.pm.order[0]))


def _drop_a_row(world: World) -> None:
    table = registry.projections()["tasks"].table
    with world.boards.engine.begin() as conn:
        conn.execute(table.delete())


@pytest.mark.parametrize(
    ("harm", "promise"),
    [
        (_lose_an_event, "gap in the sequence"),
        (_double_an_effect, "more than one effect"),
        (_forget_an_effect, "done without an effect"),
        (_swap_effects, "effects out of order"),
        (_drop_a_command, "an effect that nobody asked for"),
        (_drop_a_row, "a board that is not the fold of the log"),
    ],
)
def test_harm_is_found(harm: Callable[[World], None], promise: str) -> None:
    world = busy_world()
    assert check(world) == []
    harm(world)
    assert promise in {broken.promise for broken in check(world)}
