"""Every board there is, and the trail. A new one: a folder with its fold and table, and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from hub.kit.projection import AnyProjection, Projection
from hub.kit.projection import Board
from projections.deals import page as deals
from projections.entities import fold as entities
from projections.inbox import page as inbox
from projections.tasks import page as tasks
from hub.projector import trail_index as trail

BOARDS: Mapping[str, Board] = {board.name: board for board in (tasks.BOARD, deals.BOARD, inbox.BOARD)}
"""Those with a page, in the order of the menu."""
PROJECTIONS: Mapping[str, Projection] = {
    **{board.name: board.projection for board in BOARDS.values()},
    entities.PROJECTION.name: entities.PROJECTION,
}
"""Those that are folds, pages or not."""
ALL: Mapping[str, AnyProjection] = {**PROJECTIONS, trail.INDEX.name: trail.INDEX}
"""All that is kept equal to the log."""
