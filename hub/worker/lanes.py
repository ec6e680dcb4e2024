"""Threads for blocking work, one a partition: what a partition sends goes out in the order in which it was asked for.

Cancelling whoever waits does not stop a send that has begun; the next one of that partition waits for it all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Lanes:
    """A thread for each partition that has asked, and one (None) for reading state."""

    _lanes: dict[int | None, ThreadPoolExecutor] = field(default_factory=dict)

    async def run(self, lane: int | None, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do blocking work in a lane, behind what was asked for there before."""
        if lane not in self._lanes:
            self._lanes[lane] = ThreadPoolExecutor(1, f"lane-{lane}")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._lanes[lane], lambda: work(*args, **kwargs))
