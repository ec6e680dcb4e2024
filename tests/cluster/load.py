"""Signed pushes through both doors at an even pace, tasks finished as they appear, and what became of each deal."""

from __future__ import annotations

import itertools
import random
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import requests

from tests.acceptance.acme import SECRETS, Sender, deal, task_done
from tests.acceptance.outside import Made, Outside

PATIENCE = 180.0
"""Seconds for which a sender tries again; after that the hub has refused what it promised to take."""
TWICE = 0.2
"""Share of the pushes that come a second time, by the other door."""
_NUMBER = re.compile(r"网关项目 (\d+)（")


@dataclass
class Load:
    """`rate` deals a second, each won once, its three tasks finished once over there."""

    urls: list[str]
    outside: Outside
    rate: float
    seed: int
    pushed: dict[int, float] = field(default_factory=dict)
    """Deal → when its push was accepted first."""
    done: dict[int, float] = field(default_factory=dict)
    """Deal → when its message arrived."""
    errors: list[BaseException] = field(default_factory=list)
    refusals: int = 0
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _next: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pushing: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _pushers: list[threading.Thread] = field(default_factory=list)
    _seen: int = 0
    _tasks: list[Made] = field(default_factory=list)

    def start(self, senders: int = 3) -> None:
        """Begin."""
        self._next = time.monotonic()
        self._pushing.set()
        self._pushers = [self._thread(self._push) for _ in range(senders)]
        self._threads = [*self._pushers, self._thread(self._watch), *[self._thread(self._finish) for _ in range(2)]]
        for thread in self._threads:
            thread.start()

    def _thread(self, job: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=self._guarded, args=(job,), daemon=True)

    def close_the_till(self) -> None:
        """Push no more deals, and wait for the answer to the last ones; tasks are still finished."""
        self._pushing.clear()
        for thread in self._pushers:
            thread.join(PATIENCE)

    def stop(self) -> None:
        """End every thread."""
        self._pushing.clear()
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    @property
    def deals(self) -> int:
        """How many were accepted."""
        return len(self.pushed)

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            self.errors.append(error)

    def _push(self) -> None:
        doors = [Sender(url, "crm", SECRETS["CRM_SECRET"]) for url in self.urls]
        chance = random.Random(self.seed + threading.get_ident())
        while self._pushing.is_set():
            number = self._turn()
            if number is None:
                continue
            delivery = self._through(doors, deal(number), number)
            self.pushed[number] = time.monotonic()
            if chance.random() < TWICE:
                self._through(doors[::-1], deal(number), number, delivery)

    def _turn(self) -> int | None:
        """The next deal once its moment has come; None when none is wanted any more."""
        with self._lock:
            due = self._next
            self._next = max(due, time.monotonic() - 1.0) + 1.0 / self.rate
            number = next(self._numbers) if self._pushing.is_set() else None
        self._over.wait(max(0.0, due - time.monotonic()))
        return number

    def _through(self, doors: list[Sender], body: bytes, turn: int, delivery: str | None = None) -> str:
        """Push until a door has accepted, going to the other one when one does not answer, as a balancer does."""
        delivery, deadline = delivery or f"msg_{secrets.token_hex(8)}", time.monotonic() + PATIENCE
        for door in itertools.cycle(doors[turn % 2 :] + doors[: turn % 2]):
            try:
                status = door.once(body, delivery).status_code
            except requests.RequestException:
                status = 503
            if status == 202:
                return delivery
            self.refusals += 1
            assert status >= 500 or status == 429, f"the hub answered {status}"
            assert time.monotonic() < deadline, f"not accepted for {PATIENCE:.0f} s"
            time.sleep(0.1)
        raise AssertionError

    def _watch(self) -> None:
        """Note when each deal's message arrived, and which tasks are to be finished."""
        while not self._over.wait(0.05):
            with self.outside.lock:
                fresh = self.outside.made[self._seen :]
            now = time.monotonic()
            for made in fresh:
                found = _NUMBER.search(str(made.body.get("text"))) if made.kind == "messages" else None
                if found is not None:
                    self.done.setdefault(int(found[1]), now)
            with self._lock:
                self._tasks += [made for made in fresh if made.kind == "tasks"]
            self._seen += len(fresh)

    def _finish(self) -> None:
        doors = [Sender(url, "pm", SECRETS["PM_SECRET"]) for url in self.urls]
        for turn in itertools.count():
            with self._lock:
                task = self._tasks.pop(0) if self._tasks else None
            if task is None:
                if self._over.wait(0.05):
                    return
                continue
            self._through(doors, task_done(task.id), turn)

    def waiting(self, seconds: float) -> int:
        """How many deals were accepted so long ago and are not done."""
        before = time.monotonic() - seconds
        return sum(1 for n, at in list(self.pushed.items()) if at < before and n not in self.done)

    def waits(self, since: float, until: float) -> list[float]:
        """Seconds from accepted to done, of the deals accepted in between."""
        return [self.done[n] - at for n, at in list(self.pushed.items()) if since <= at < until and n in self.done]
