"""Room that a board's table keeps free for its rows to change in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROOM: Mapping[str, Any] = {"postgresql_with": {"fillfactor": 70}}
"""Given to a `Table`: PostgreSQL then has a changed row beside the old one, and no index to write while its columns stay."""
