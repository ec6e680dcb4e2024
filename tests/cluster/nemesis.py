"""Kills one of everything in turn, waits until it is back, and measures how long the work felt it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import create_engine, text

from tests.acceptance.running import until
from tests.cluster.brokers import Brokers
from tests.cluster.copies import Copies
from tests.cluster.load import Load

KINDS = ("broker", "worker", "connectors", "projections")
PAUSE = 20.0
"""Seconds between what was killed being back and the next kill."""
AWAY = 8.0
"""Seconds for which a broker stays away."""
SLOW = 3.0
"""Seconds from accepted to done for which a deal does not yet count as waiting."""
MOST = 60.0
"""Seconds for which recovery is waited for; on a machine that is too busy for the load it may not come."""


@dataclass
class Kill:
    """One kill, by monotonic seconds. `back`: the program or broker was whole again; `recovered`: no deal waited any more."""

    kind: str
    name: str
    at: float
    back: float = 0.0
    recovered: float = 0.0


@dataclass
class Nemesis:
    """Prefers whoever leads: the broker of the first partition, the relaying connectors, the board's writer."""

    brokers: Brokers
    copies: Copies
    load: Load
    client: Mapping[str, Any]
    ledger: str
    boards: str
    kills: list[Kill] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        """Kill one of each kind at least, then on until the time is over."""
        began = time.monotonic()
        turn = 0
        while turn < len(KINDS) or time.monotonic() - began < seconds - PAUSE:
            time.sleep(PAUSE)  # the steady time before a kill is part of what is measured
            self._kill(KINDS[turn % len(KINDS)], turn)
            turn += 1
        time.sleep(PAUSE)

    def _kill(self, kind: str, turn: int) -> None:
        name = self.brokers.leader(self.client) if kind == "broker" else self._leader(kind, turn)
        kill = Kill(kind, name, time.monotonic())
        if kind == "broker":
            self.brokers.kill(name)
            time.sleep(AWAY)
            self.brokers.start(name)
            until(lambda: self.brokers.in_sync(self.client, 12), 120, f"{name} has every record again")
        else:
            killed = self.copies.kill(name)
            until(lambda: self.copies.programs[name].pid != killed and self.copies.ready(name), 120, f"{name} is back")
        kill.back = time.monotonic()
        self.kills.append(kill)
        while time.monotonic() - kill.back < MOST and self.load.waiting(SLOW):
            time.sleep(0.1)
        kill.recovered = 0.0 if self.load.waiting(SLOW) else time.monotonic()

    def _leader(self, kind: str, turn: int) -> str:
        if kind == "connectors":
            held = self._one(self.ledger, "SELECT owner FROM leases WHERE job = 'relay'")
            pid = held.split("/")[1] if held else ""
        elif kind == "projections":
            held = self._one(self.boards, "SELECT holder FROM board_owners WHERE projection = 'tasks'")
            pid = held.rsplit(":", 2)[1] if held else ""
        else:
            return f"worker-{turn // len(KINDS) % 3 + 1}"
        return (self.copies.named(int(pid)) if pid else None) or f"{kind}-1"

    @staticmethod
    def _one(url: str, query: str) -> str:
        engine = create_engine(url)
        try:
            with engine.connect() as conn:
                return str(conn.execute(text(query)).scalar_one_or_none() or "")
        finally:
            engine.dispose()


def felt(kill: Kill, load: Load, end: float) -> dict[str, Any]:
    """What a kill did to the work until `end`."""
    waits = load.waits(kill.at - SLOW, end)
    return {
        "kind": kill.kind,
        "name": kill.name,
        "back_seconds": round(kill.back - kill.at, 1),
        "recovered_seconds": round(kill.recovered - kill.at, 1) if kill.recovered else None,
        "longest_wait_seconds": round(max(waits, default=0.0), 1),
    }
