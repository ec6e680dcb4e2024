"""Every board there is. A new one: a folder with its fold and table, and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from hub.projection import Projection
from projections.board import Board
from projections.tasks import page as tasks

BOARDS: Mapping[str, Board] = {board.name: board for board in (tasks.BOARD,)}
"""Those with a page, in the order of the menu."""
PROJECTIONS: Mapping[str, Projection] = {board.name: board.projection for board in BOARDS.values()}
