"""What senders do while faults happen: won deals, pushed one to three times, until each is accepted."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tests.acceptance.acme import NOON, SECRETS, Sender, deal

SENDERS = 8
ODD_DATES = (-3600, -86_400, -30 * 86_400, -20 * 365 * 86_400, 60, 3600, 80_000)
"""Seconds from now: what senders may say of when something was. Later than tomorrow is not believed, but parked."""
PATIENCE = 240.0
"""Seconds for which a sender tries again: longer than any fault."""


@dataclass
class Load:
    """Pushes at an even pace until it is stopped. `sent` are the deals that were accepted, and nothing else was pushed."""

    url: str
    seed: int
    per_second: float = 10.0
    repeats: Sequence[int] = (1, 1, 2, 3)
    shuffled: bool = False
    dated: bool = False
    passing: int = 503
    """A status that is no refusal for good, beside those of 500 and more."""
    begun: int = 0
    sent: list[int] = field(default_factory=list)
    repeated: int = 0
    out_of_order: int = 0
    odd_dates: int = 0
    failed: list[str] = field(default_factory=list)
    _flowing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _local: threading.local = field(default_factory=threading.local)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Push `per_second` deals, each as often as one of `repeats` says; returns at once."""
        self._flowing.set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def hold(self) -> None:
        """Begin no deal until `go_on`; returns when all that were begun are accepted."""
        self._flowing.clear()
        deadline = time.monotonic() + PATIENCE
        while self.begun > len(self.sent) + len(self.failed):
            assert time.monotonic() < deadline, "what was pushed is not accepted"
            time.sleep(0.01)

    def go_on(self) -> None:
        """Push again."""
        self._flowing.set()

    def stop(self) -> None:
        """Push no new deal; returns when all that were begun are accepted."""
        self._stopping.set()
        self._flowing.set()
        assert self._thread is not None
        self._thread.join()

    def give_up(self) -> None:
        """Push no new deal, and wait for none."""
        self._stopping.set()
        self._flowing.set()

    @contextlib.contextmanager
    def one_more(self) -> Iterator[int]:
        """The number of one more deal, which is to be accepted within the block."""
        with self._lock:
            number, self.begun = self.begun, self.begun + 1
        yield number
        with self._lock:
            self.sent.append(number)

    def push(self, times: int = 1) -> int:
        """Push one more deal now; its number, once it is accepted."""
        if not hasattr(self._local, "sender"):
            self._local.sender = Sender(self.url, "crm", SECRETS["CRM_SECRET"])
        with self.one_more() as number:
            bodies = self._story(number) * times
            for body in bodies:
                self._local.sender.push(body, PATIENCE, passing=self.passing)
        with self._lock:
            self.repeated += times - 1
            self.out_of_order += len(bodies) // times - 1
            self.odd_dates += self.dated
        return number

    def _story(self, number: int) -> list[bytes]:
        """That it was won, and, where news come in any order, that it was changed before and after."""
        at = self._date(number) if self.dated else NOON
        changed = [deal(number, type_="deal.changed", version=version, at=at) for version in (3, 5, 9)]
        bodies = [deal(number, at=at), *changed] if self.shuffled else [deal(number, at=at)]
        random.Random(self.seed + number).shuffle(bodies)
        return bodies

    def _date(self, number: int) -> str:
        """Long ago, just ago, or still to come."""
        away = timedelta(seconds=ODD_DATES[number % len(ODD_DATES)])
        return (datetime.now(UTC) + away).isoformat()

    def _run(self) -> None:
        chosen = random.Random(self.seed)
        next_at = time.monotonic()
        with ThreadPoolExecutor(SENDERS) as pool:
            slots = threading.Semaphore(SENDERS)
            while not self._stopping.wait(max(0.0, next_at - time.monotonic())):
                next_at = max(next_at + 1 / self.per_second, time.monotonic())
                self._flowing.wait()
                slots.acquire()
                pool.submit(self._one, chosen.choice(self.repeats), slots)

    def _one(self, times: int, slots: threading.Semaphore) -> None:
        try:
            self.push(times)
        except Exception as error:
            self.failed.append(f"{type(error).__name__}: {error}")
        finally:
            slots.release()
