"""What the ledger's tables share."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Integer, MetaData, Row
from sqlalchemy.dialects import postgresql, sqlite

metadata = MetaData()
"""Columns of time hold a `schemas.event.Stamp`: text whose order is the order of time, the same in both databases."""

AnyRow = Row[*tuple[Any, ...]]

Serial = BigInteger().with_variant(Integer(), "sqlite")
"""A counting key: SQLite counts only INTEGER ones."""
Json = JSON().with_variant(postgresql.JSONB(), "postgresql").with_variant(sqlite.JSON(), "sqlite")
