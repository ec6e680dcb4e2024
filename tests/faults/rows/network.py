"""Networks that delay, reset and fall silent, between the hub and its database and between the hub and a target: F12–F14."""

from __future__ import annotations

import random
import time

from tests.faults.proxy import Weather
from tests.faults.row import Row
from tests.faults.stage import Stage

TO, BACK = frozenset({"to"}), frozenset({"back"})
FINE = Weather()


def partition(stage: Stage, chosen: random.Random) -> None:
    """Silence, in one direction or both: nobody is told that the other is gone."""
    proxy = chosen.choice(list(stage.proxies.values()))
    proxy.weather = Weather(mute=chosen.choice((TO, BACK, TO | BACK)))
    time.sleep(chosen.uniform(5.0, 20.0))
    proxy.weather = FINE
    proxy.reset_all()  # what was swallowed is missing in the stream: such a connection never comes to itself again
    stage.faults += 1


def bad_line(stage: Stage, chosen: random.Random) -> None:
    """200 ms of delay, more or less, and now and then a reset."""
    for proxy in stage.proxies.values():
        proxy.weather = Weather(delay=0.1, reset_share=0.02)
    time.sleep(chosen.uniform(5.0, 10.0))
    for proxy in stage.proxies.values():
        proxy.weather = FINE
    stage.faults += 1


def half_open(stage: Stage, chosen: random.Random) -> None:
    """The target is gone and sends no reset; later its connections are found dead."""
    proxy = stage.proxies["target"]
    proxy.weather = Weather(mute=TO | BACK)
    time.sleep(20.0)  # longer than a call may take
    proxy.weather = FINE
    proxy.reset_all()
    stage.faults += 1


ROWS = [
    Row("F12", "silence between hub and database or target, one way too", 1, 30, partition),
    Row("F13", "delay of 200 ms and resets", 2, 20, bad_line),
    Row("F14", "half-open connections to a target", 1, 20, half_open, any_store=True),
]
