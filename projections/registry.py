"""Every board there is. A new one: a folder with its fold and table, and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from hub.projection import Projection
from projections.tasks import cards

PROJECTIONS: Mapping[str, Projection] = {projection.name: projection for projection in (cards.PROJECTION,)}
