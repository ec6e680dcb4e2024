"""Outside systems that refuse, hang and answer nonsense: F24–F28. A fault is a call that went wrong.

Fewer deals than elsewhere: a system that asks in every twentieth call to be left alone for a second takes some twenty a second,
and one that keeps every tenth from its answer fills the places that there are for calls.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from hub.kit.connector import RateLimits
from tests.acceptance.outside import Mischief, Seeded, well_behaved
from tests.acceptance.running import until
from tests.faults.row import Row
from tests.faults.stage import LONGEST, Stage

REFUSALS = ("429", "429-later", "500", "503")
SILENCES = ("hang", "hang-done", "drop", "drop-done", "500-done")
UNTOLD = ("500-done", "drop-done", "hang-done")
NONSENSE = ("half-done", "short-done", "garbage-done", "drip-done", "huge-done")


def misbehaving(share: float, *kinds: str) -> Callable[[int], Mischief]:
    """A share of all calls, chosen by the seed."""
    return lambda seed: Seeded(seed, share, kinds)


def for_a_while(stage: Stage, chosen: random.Random) -> None:
    """Let calls go wrong, and count those that did."""
    time.sleep(2.0)
    stage.faults = count_wrong(stage)


def count_wrong(stage: Stage) -> int:
    """Calls so far that were not answered well."""
    return sum(count for kind, count in stage.outside.calls.items() if kind != "well")


def all_refused(stage: Stage, chosen: random.Random) -> None:
    """Every call is refused for a while; then none."""
    plan, stage.outside.mischief = stage.outside.mischief, Seeded(chosen.randrange(1000), 1.0, REFUSALS)
    time.sleep(chosen.uniform(3.0, 10.0))
    stage.outside.mischief = plan
    stage.faults = count_wrong(stage)


def found_late(stage: Stage, chosen: random.Random) -> None:
    """What was made is found only after a while, within the time that acme gives its systems to settle."""
    stage.outside.lag = 0.8 * RateLimits().settle
    for_a_while(stage, chosen)


def all_unknown(stage: Stage, chosen: random.Random) -> None:
    """Every call is refused for its credentials for a while, as when a key was revoked and is then renewed."""
    stage.outside.mischief = Seeded(0, 1.0, ("401",))
    time.sleep(chosen.uniform(3.0, 10.0))
    stage.outside.mischief = well_behaved
    stage.faults += 1


def lies_are_found(stage: Stage) -> list[str]:
    """What the target said it had done, and had not, is found by asking it: all of that, and nothing else."""
    until(lambda: _told(stage)["young"] == 0, LONGEST, "all has had the time to be found")
    told = _told(stage)
    missing = {gone["command"] for gone in told["missing"]}
    lied = stage.outside.lied - stage.outside.marks("tasks").keys()
    if missing != lied or told["unanswered"]:
        return [f"{len(lied)} tasks were not made; told as missing: {len(missing)}, unanswered: {told['unanswered']}"]
    return []


def _told(stage: Stage) -> dict[str, Any]:
    """What the project tool says of what was done there."""
    report = stage.hub.json("audit", "--outside")
    found: dict[str, Any] = next(told for told in report["outside"] if told["instance"] == "pm")
    return found


def no_command_is_parked(stage: Stage) -> list[str]:
    """Credentials that are refused say nothing of a command."""
    parked = int(stage.hub.json("parked", "--kind", "command")["count"])
    return [f"{parked} commands are parked"] if parked else []


ROWS = [
    Row("F24", "429, 500 and 503, in bursts of all calls", 100, 5000, all_refused, misbehaving(0.2, *REFUSALS), 2.0),
    Row("F25", "no answer, before the effect and after it", 60, 5000, for_a_while, misbehaving(0.1, *SILENCES), 2.5),
    Row(
        "F26",
        "half, short, slow, endless and garbled answers",
        40,
        2000,
        for_a_while,
        misbehaving(0.08, *NONSENSE),
        3.0,
    ),
    Row("F27", "done, but told as failed, and found late", 20, 500, found_late, misbehaving(0.1, *UNTOLD), 3.0),
    Row(
        "F27b",
        "told as done, and never made",
        20,
        500,
        for_a_while,
        misbehaving(0.1, "lost"),
        3.0,
        checks=lies_are_found,
        any_store=True,
    ),
    Row("F28", "credentials are refused by all", 2, 200, all_unknown, checks=no_command_is_parked, any_store=True),
]
