"""Whether the time of a refusal tells how much of a signature was right: S3. A fault is a forged signature that is timed."""

from __future__ import annotations

import math
import random
import statistics
import time
from datetime import UTC, datetime

from standardwebhooks import Webhook

from connectors.http.settings import Verify
from connectors.http.signatures import Verifier
from hub.errors import RejectedError
from hub.kit.connector import Delivery, Instance
from tests.acceptance.acme import SECRETS, deal
from tests.faults.row import Row
from tests.faults.stage import Stage

BATCH = 20_000
MOST = 4.5
"""Welch's t beyond which two classes of measurements are held to be different."""
KEPT = 0.9
"""The share of the measurements that is compared: the slowest ones tell of the machine."""


def timed(stage: Stage, chosen: random.Random) -> None:
    """Wrong in the first character, or only in the last: in any order, and both must take as long."""
    verifier = Verifier(
        Verify.model_validate({"scheme": "standard-webhooks", "secret": SECRETS["CRM_SECRET"]}),
        Instance("crm", "http", {}),
    )
    body, now = deal(0), datetime.now(UTC)
    right = Webhook(SECRETS["CRM_SECRET"]).sign("msg_1", now, body.decode()).removeprefix("v1,")
    forged = ("!" + right[1:], right[:-2] + "!" + right[-1:])
    taken: tuple[list[int], list[int]] = ([], [])
    for _ in range(BATCH):
        which = chosen.getrandbits(1)
        headers = {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": f"v1,{forged[which]}",
        }
        taken[which].append(_nanoseconds(verifier, Delivery(headers, body, now)))
    t = welch(*map(_fast, taken))
    assert abs(t) < MOST, f"a signature that is wrong at its end takes another time: t = {t:.1f} of {BATCH}"
    stage.faults += BATCH


def _nanoseconds(verifier: Verifier, delivery: Delivery) -> int:
    began = time.perf_counter_ns()
    try:
        verifier.verify(delivery)
    except RejectedError:
        return time.perf_counter_ns() - began
    raise AssertionError("a forged signature is believed")


def _fast(taken: list[int]) -> list[int]:
    return sorted(taken)[: int(KEPT * len(taken))]


def welch(one: list[int], other: list[int]) -> float:
    """Welch's t of two samples."""
    spread = statistics.variance(one) / len(one) + statistics.variance(other) / len(other)
    return (statistics.fmean(one) - statistics.fmean(other)) / math.sqrt(spread)


ROWS = [Row("S3", "forged signatures, timed", BATCH, 5 * BATCH, timed, any_store=True)]
