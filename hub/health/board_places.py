"""How far each board is folded, read from the boards' own store.

The columns are named here because the hub does not import its boards; `tests/unit/hub/cli` holds them to what
`projections.store` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hub.ledger.looking import look_at


@dataclass(frozen=True)
class BoardPlace:
    """Partition → next offset, and when the board last reflected the whole log (empty: never)."""

    next_offsets: Mapping[int, int]
    fresh_at: str

    def behind(self, ends: Mapping[int, int]) -> int:
        """Records of the log that it has yet to fold."""
        return sum(max(0, end - self.next_offsets.get(partition, 0)) for partition, end in ends.items())


def board_places(url: str) -> dict[str, BoardPlace]:
    """Every board by its name; none when there is no store yet."""
    from sqlalchemy import column, select, table

    owners = table("board_owners", column("projection"), column("fresh_at"))
    positions = table("board_positions", column("projection"), column("partition"), column("next_offset"))
    with look_at(url, "board_owners") as conn:
        if conn is None:
            return {}
        places: dict[str, dict[int, int]] = {}
        for row in conn.execute(select(positions)):
            places.setdefault(row.projection, {})[row.partition] = row.next_offset
        found = conn.execute(select(owners).order_by(owners.c.projection)).all()
    shown = [row for row in found if not row.projection.endswith("__shadow")]
    return {row.projection: BoardPlace(places.get(row.projection, {}), row.fresh_at) for row in shown}
