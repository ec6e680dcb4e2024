"""A board full of cards that differ in a number only: rows and events of each, made by replacing text, which is quick."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import orjson
from sqlalchemy import JSON, text

from hub.kit.projection import Row
from hub.log.event_log import Record
from hub.projector.folding import fold
from hub.projector.store import BoardStore
from projections.tasks.fold import PROJECTION
from schemas.envelope import Event
from schemas.topics import EVENTS
from tests.board_events import Deal

TABLE = PROJECTION.table
NUMBER = "4711"
DEAL = Deal(int(NUMBER))
KEY = DEAL.task(0)
_later = itertools.count(10)


def _card() -> Row:
    row = fold(PROJECTION, DEAL.story(), {})[KEY].after
    assert row is not None
    return row


CARD = _card()


def _next_step() -> Event:
    return DEAL.step(0, "started", next(_later))


def numbered(text: str, number: int) -> str:
    """The text as this card has it."""
    return text.replace(NUMBER, str(number))


def rows_of(numbers: Iterable[int]) -> dict[str, Row]:
    """These cards, each another step on since they were last asked for."""
    after = fold(PROJECTION, [_next_step()], {KEY: CARD})[KEY].after
    plain = orjson.dumps(after).decode()
    return {numbered(KEY, number): orjson.loads(numbered(plain, number)) for number in numbers}


def records_of(numbers: Sequence[int], first: int) -> list[Record]:
    """An event for each of these cards, as they lie in partition 0 of the log; each step is later than all before."""
    told = _next_step()
    plain = told.to_json().decode()
    return [
        Record(EVENTS.name, 0, first + at, numbered(told.case, number).encode(), numbered(plain, number).encode())
        for at, number in enumerate(numbers)
    ]


def fill(store: BoardStore, rows: int) -> None:
    """Put cards 0 to `rows` into an empty board, by the database's own means."""
    postgres = store.engine.dialect.name == "postgresql"
    template = {"key": KEY, **CARD}
    values, bound = [], {}
    for column in TABLE.columns:
        value = template[column.name]
        is_json = isinstance(column.type, JSON) and value is not None
        bound[f"_{column.name}"] = orjson.dumps(value).decode() if is_json else value
        said = f"replace(CAST(:_{column.name} AS TEXT), '{NUMBER}', CAST(n AS TEXT))"
        values.append(f"CAST({said} AS JSON)" if is_json and postgres else said)
    names = ", ".join(store.engine.dialect.identifier_preparer.quote(column.name) for column in TABLE.columns)
    counted = "SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :rows"
    into = f"INSERT INTO {TABLE.name} ({names}) WITH RECURSIVE numbers(n) AS ({counted}) SELECT {', '.join(values)} FROM numbers"
    with store.writing() as conn:
        conn.execute(text(into), {"rows": rows, **bound})
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT", reading=True) as conn:
        conn.exec_driver_sql("VACUUM ANALYZE" if postgres else "ANALYZE")
