"""Which entries a person means: filters and causes, as the ledger looks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hub.cli.times import time_of
from hub.errors import RejectedError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.ledger.ledger import Ledger
    from hub.ledger.metadata import AnyRow
    from hub.ledger.parked_search import Wanted


def wanted(
    conn: Connection | None = None,
    cause: str | None = None,
    *,
    kind: str | None = None,
    code: str | None = None,
    rule: str | None = None,
    instance: str | None = None,
    case: str | None = None,
    since: str | None = None,
    state: str = "open",
) -> Wanted:
    """The filter of these marks. Raises RejectedError for a cause that no open entry has, and for a time that is none."""
    from hub.ledger.parked_search import Wanted, by_name

    found = Wanted(
        kind, code, rule, instance, case, time_of(since) if since else None, None if state == "all" else state
    )
    if cause is None or conn is None:
        return found
    named = by_name(conn, cause)
    if not named:
        raise RejectedError("HUB-E6208", cause=cause)
    if all(each.code == cause for each in named):
        return replace(found, code=cause)
    if len(named) > 1:
        raise RejectedError("HUB-E6207", ref=cause, candidates=", ".join(each.name for each in named[:5]))
    return replace(found, cause=named[0])


def pages(ledger: Ledger, wanted: Wanted) -> Iterator[Sequence[AnyRow]]:
    """All that is wanted, a page at a time, each a look of its own: what is settled meanwhile is not seen again."""
    from hub.ledger.parked_search import page

    after = 0
    while True:
        with ledger.reading() as conn:
            rows = page(conn, wanted, after)
        if not rows:
            return
        after = rows[-1].id
        yield rows
