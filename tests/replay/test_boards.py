"""A board is the fold of its log, whatever happened on the way."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from hub.log.memory_log import MemoryLog
from hub.projector import registry
from hub.projector.rebuild import rebuild, snapshot
from hub.projector.runner import Runner
from hub.projector.store import BoardStore
from tests.board_events import Deal, Relay
from tests.postgres_fixture import NewDatabase
from tests.replay import board_child

STEPS = ("accepted", "started", "completed", "reopened", "cancelled", "assigned")


def history(seed: int, deals: int = 12) -> Relay:
    """What may happen: deals, their tasks in any order of steps, parked work, repeats in the log, records that are none."""
    chance, relay = random.Random(seed), Relay(MemoryLog())  # a test's own
    for number in range(deals):
        deal = Deal(number, minutes=number * 3)
        written = relay.send(deal.story())
        steps = [
            deal.step(
                chance.randrange(3), chance.choice(STEPS), 5 + at, chance.choice([None, str(chance.randrange(9))])
            )
            for at in range(chance.randrange(8))
        ]
        written += relay.send(steps)
        if chance.random() < 0.3:
            relay.raw(deal.case, chance.choice([b"", b"\xff", b"{}", b'{"id": 1}']))
        if chance.random() < 0.5:
            relay.append(chance.sample(written, chance.randrange(len(written))))
    return relay


def fold_all(relay: Relay, url: str, limit: int = 2000) -> dict[str, str]:
    """Fold every board to the end of the log; the digests."""
    store = BoardStore(url)
    store.prepare(registry.all_projections().values())
    for projection in registry.all_projections().values():
        Runner(relay.log, store, projection).catch_up(limit)
    told = digests(store)
    store.close()
    return told


def digests(store: BoardStore) -> dict[str, str]:
    told = {}
    for name, projection in registry.all_projections().items():
        with store.reading() as conn:
            told[name] = snapshot(conn, projection).digest
    return told


@pytest.mark.parametrize("seed", range(5))
def test_deleting_the_boards_and_starting_again_gives_the_same(seed: int, tmp_path: Path) -> None:
    relay, file = history(seed), tmp_path / "boards.sqlite"
    before = fold_all(relay, f"sqlite:///{file}", limit=11)
    for left in tmp_path.iterdir():
        left.unlink()
    assert fold_all(relay, f"sqlite:///{file}") == before


@pytest.mark.parametrize("seed", range(3))
def test_repeats_in_the_log_change_nothing(seed: int, tmp_path: Path) -> None:
    """The relay sends again what a crash left unacknowledged: the same events under the same sequences."""
    once, again = Relay(MemoryLog()), Relay(MemoryLog())
    for number in range(6):
        deal = Deal(number, minutes=number)
        events = [*deal.story(), deal.step(0, "started", 4), deal.step(0, "completed", 5)]
        once.send(events)
        written = again.send(events)
        again.append(written[seed * 2 :])
        again.append(written)
    first, second = fold_all(once, f"sqlite:///{tmp_path}/a"), fold_all(again, f"sqlite:///{tmp_path}/b")
    assert first.pop("trail") != second.pop("trail")  # where it lies is another place
    assert first == second


def test_a_runner_that_is_killed_between_any_two_statements_leaves_the_board_exact(tmp_path: Path) -> None:
    killed_and_finished(history(7), f"sqlite:///{tmp_path}/boards.sqlite", tmp_path)


@pytest.mark.systems
def test_the_same_on_postgresql(tmp_path: Path, postgres: NewDatabase) -> None:
    killed_and_finished(history(8), postgres(), tmp_path)


def killed_and_finished(relay: Relay, url: str, folder: Path) -> None:
    """Kill it at ever later statements, each time going on where it was; then let it finish, and compare."""
    assert isinstance(relay.log, MemoryLog)
    file = folder / "log"
    board_child.save(relay.log, file)
    kills = [str(statements) for statements in range(3, 60, 3)]
    command = [sys.executable, "-m", "tests.replay.board_child", url, str(file), *kills]
    done = subprocess.run(command, timeout=120, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.stdout.split() == ["-9"] * len(kills) + ["0"], done.stderr
    assert fold_all(relay, f"sqlite:///{folder}/clean.sqlite") == fold_all(relay, url)
    store = BoardStore(url)
    assert all(
        rebuild(relay.log, store, projection, verify=True).equal for projection in registry.all_projections().values()
    )
    store.close()
