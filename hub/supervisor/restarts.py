"""When to start a program again that has ended."""

from __future__ import annotations

from dataclasses import dataclass

FIRST, MOST = 0.2, 10.0
"""Seconds before a restart: the first, and the longest."""
STEADY = 10.0
"""Seconds after which a program that ran is taken to be well."""


@dataclass
class BackOff:
    """Doubles the pause while a program keeps ending soon after its start."""

    pause: float = FIRST

    def after(self, ran: float) -> float:
        """Seconds to wait now, after a run of so many seconds."""
        if ran >= STEADY:
            self.pause = FIRST
        now, self.pause = self.pause, min(self.pause * 2, MOST)
        return now
