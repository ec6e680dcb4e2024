"""The bound of what one sender may have parked. Apart from its counting, as every command reads settings and few open a ledger."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quota:
    """What may be open of one instance's deliveries."""

    entries: int = 10_000
    bytes: int = 256 * 1024 * 1024
    again: float = 1.0
    """Seconds for which it stays full without another count."""
