"""Looking at a database that another program writes: one consistent look, and nothing is made by it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection


@contextlib.contextmanager
def look_at(url: str, table: str) -> Iterator[Connection | None]:
    """One consistent look at a database; None when it lacks this table. Writes nothing, not even a file."""
    from sqlalchemy import inspect
    from sqlalchemy.engine import make_url

    from hub.ledger.database import open_engine, reading

    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        yield None
        return
    engine = open_engine(url)
    try:
        with reading(engine) as conn:
            if conn.dialect.name == "postgresql":
                conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield conn if inspect(conn).has_table(table) else None
    finally:
        engine.dispose()
