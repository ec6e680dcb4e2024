"""Every metric of the hub: name, unit and meaning. Each process holds its own values; `GET /metrics` shows them."""

from __future__ import annotations

from prometheus_client import Gauge, Histogram

COMMANDS = Gauge("hub_commands", "Commands in the ledger that have not ended, by state.", ["instance", "state"])
CALL_SECONDS = Histogram(
    "hub_call_seconds",
    "Seconds that a call to an outside system took, by how it ended.",
    ["instance", "type", "ended"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
)
PAUSED = Gauge(
    "hub_instance_paused",
    "1 while an instance is away or refuses us: calls are trials then, one at a time.",
    ["instance"],
)
