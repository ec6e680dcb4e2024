"""A log that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable

from hub.errors import RetryableError
from hub.log.event_log import Record


class Away:
    """The log while its broker is away."""

    def at(self, partition: int, offsets: Iterable[int]) -> dict[int, Record]:
        raise RetryableError("HUB-E2104", reason="no broker")

    def close(self) -> None:
        """Nothing to let go of."""
