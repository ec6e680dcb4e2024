"""What a person does about a parked delivery: correct it. Trying again and discarding are asked for by `parked.ask`.

The bytes that came stay; the correction is read in their place, and what it tells has the ids that the bytes would have given.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection

from hub.ledger import parked_events
from hub.ledger.database import AnyRow
from hub.ledger.parked_events import Asking
from schemas.envelope import MAX_BYTES


def edit(conn: Connection, entry: AnyRow, body: bytes, asking: Asking) -> str | None:
    """Have the next try read this instead of what came; the id of the event that tells of it, None when that is so already."""
    text = body.decode(errors="replace")
    told = {"body": text}
    if len(text.encode()) > MAX_BYTES // 4:
        told = {"body": text[: MAX_BYTES // 16], "sha256": hashlib.sha256(body).hexdigest()}
    return parked_events.correct(conn, entry, body, told, asking)
