"""Operator action on a parked (dead-lettered) delivery: correct it. Retry and discard are requested through `parked.request`.

The received bytes stay stored. The correction is read in their place, and its events get the ids that those bytes would have given.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection

from hub.ledger import parked_events
from hub.ledger.database import AnyRow
from hub.ledger.parked_events import OperatorRequest
from schemas.envelope import MAX_BYTES


def edit(conn: Connection, entry: AnyRow, body: bytes, request: OperatorRequest) -> str | None:
    """Read `body` instead of the received bytes at the next try; returns the edit event's id, None when nothing changes."""
    text = body.decode(errors="replace")
    details = {"body": text}
    if len(text.encode()) > MAX_BYTES // 4:
        details = {"body": text[: MAX_BYTES // 16], "sha256": hashlib.sha256(body).hexdigest()}
    return parked_events.correct(conn, entry, body, details, request)
