"""Whatever happens in whatever order: a refold asks for nothing anew, leaves nothing out, and decides as it was decided."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hub.runtime import failpoints
from tests.events import won
from tests.unit.hub.processor.rule_stage import TASK, Stage, Worker

PLACES = ("before-in-force", "in-force", "outputs-delivered", "states-delivered")
RULES = ("one", "two", "three")
HOMES = ("first", "second")


class Play:
    """Two machines that share a log, with files of their own; by turns one of them has all partitions, or each has half."""

    def __init__(self, folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stage, self.chance, self.monkeypatch = Stage(folder), random.Random(seed), monkeypatch
        self.deals = 0
        self.dead: set[str] = set()
        for name in HOMES:
            self.stage.home(name, one=TASK % "a")
        self.workers: dict[str, Worker] = {}
        self.start("first")

    def start(self, name: str) -> None:
        """A machine's worker starts, and the partitions are dealt out anew."""
        both = [*self.workers, name] if name not in self.workers else [*self.workers]
        share = {each: set(range(at, 12, len(both))) for at, each in enumerate(sorted(both))}
        for each in list(self.workers):
            if each != name:
                self.workers[each].take(share[each])
        self.workers[name] = self.stage.worker(self.stage.folder / name, share[name])

    def act(self) -> None:
        """Something happens."""
        act = self.chance.choice(
            (
                self.sell,
                self.sell,
                self.fold,
                self.fold,
                self.deploy,
                self.look,
                self.relay,
                self.crash,
                self.move,
                self.forget,
            )
        )
        act()

    def sell(self) -> None:
        count = self.chance.randint(1, 8)
        self.stage.append(won(f"O-{n}") for n in range(self.deals, self.deals + count))
        self.deals += count

    def fold(self) -> None:
        for worker in self.workers.values():
            worker.fold(self.chance.choice((1, 3, 1000)))

    def deploy(self) -> None:
        """Other rules on one machine, at least one of them."""
        home = self.stage.folder / self.chance.choice(HOMES)
        chosen = self.chance.sample(RULES, self.chance.randint(1, 3))
        for rule in RULES:
            (home / "rules" / f"{rule}.yaml").unlink(missing_ok=True)
        self.stage.home(home.name, **{rule: TASK % self.chance.choice("ab") for rule in chosen})

    def look(self) -> None:
        for worker in self.workers.values():
            worker.look()

    def relay(self) -> None:
        self.stage.relay()

    def move(self) -> None:
        """A machine joins, or starts again."""
        self.start(self.chance.choice(HOMES))

    def crash(self) -> None:
        """A worker dies at some boundary, and one starts in its place."""
        name = self.chance.choice(sorted(self.workers))
        with self.failing(f"worker.{self.chance.choice(PLACES)}"):
            try:
                self.workers[name].fold(self.chance.choice((2, 1000)))
            except failpoints.FailpointError:
                del self.workers[name]
                self.start(name)

    @contextmanager
    def failing(self, place: str) -> Iterator[None]:
        left = [self.chance.randint(1, 4)]

        def reach(name: str) -> None:
            if name == place:
                left[0] -= 1
                if left[0] == 0:
                    raise failpoints.FailpointError(name)

        @contextmanager
        def unguarded(_chunk: object) -> Iterator[None]:
            yield

        with self.monkeypatch.context() as patched:
            patched.setattr("hub.processor.app.failpoint", reach)
            patched.setattr("hub.processor.app.guard", unguarded)
            yield

    def forget(self) -> None:
        """`hub repair state`, when all was folded: what is folded anew must come to what it came to."""
        self.fold()
        before, files = set(self.stage.commands()), self.chance.choice((self.deploy, self.look))
        self.workers.clear()
        self.stage.forget()
        files()
        self.start(self.chance.choice(HOMES))
        if self.chance.random() < 0.5:
            self.crash()
            self.deploy()
        self.fold()
        after = set(self.stage.commands())
        assert after == before, f"asked for anew: {len(after - before)}"

    def end(self) -> None:
        """All is folded; every deal was asked for by somebody, and once more under another log of states."""
        self.fold()
        told = self.stage.commands().values()
        assert {each["subject"] for each in told} == {f"opportunity/crm/O-{n}" for n in range(self.deals)}
        self.forget()
        self.stage.relay()
        self.forget()


@pytest.mark.parametrize("seed", range(25))
def test_a_refold_comes_to_what_the_first_fold_came_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    play = Play(tmp_path, seed, monkeypatch)
    for _ in range(30):
        play.act()
    play.end()
