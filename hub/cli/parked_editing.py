"""Correcting parked work: made by the editor, a file or settings; looked at and shown as a diff; then recorded as an event."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub.cli import parked_bytes
from hub.errors import RejectedError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.cli.running_hub import RunningHub
    from hub.ledger.database import AnyRow
    from hub.ledger.parked_events import Asking


def whole(hub: RunningHub, entry: AnyRow) -> bytes:
    """What the next try reads. Of a record that was too large for the ledger, the whole as it lies in the log."""
    if entry.correction is not None or entry.code != "HUB-E6003" or not entry.ref.startswith("record/"):
        return parked_bytes.present(entry)
    from hub.log.event_log import record_at

    topic, partition, offset = entry.ref.removeprefix("record/").rsplit("/", 2)
    return record_at(hub.log(), topic, int(partition), int(offset))


def edited(before: bytes, secrets: set[str], file: Path | None, settings: Sequence[str]) -> bytes:
    """The corrected bytes: those of a file, or with settings put in, or as the editor left them.

    JSON is edited with its secrets masked; what was left masked is put back. Raises RejectedError for what cannot be done.
    """
    import orjson

    if file is not None:
        return file.read_bytes()
    value = parked_bytes.parsed(before)
    if settings:
        if value is None:
            raise RejectedError("HUB-E6211")
        return orjson.dumps(parked_bytes.with_settings(value, settings))
    if value is None:
        return _by_editor(before, ".txt")
    after = _by_editor(parked_bytes.shown(before, secrets).encode(), ".json")
    try:
        return orjson.dumps(parked_bytes.unmasked(orjson.loads(after), value, secrets))
    except orjson.JSONDecodeError as error:
        raise RejectedError("HUB-E6212", reason=str(error)) from error


def _by_editor(text: bytes, suffix: str) -> bytes:
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory(prefix="hub-edit-") as folder:  # readable by its owner alone
        file = Path(folder) / f"parked{suffix}"
        file.write_bytes(text)
        try:
            done = subprocess.run([*command, str(file)], check=False)
        except OSError as error:
            raise RejectedError("HUB-E6213", editor=command[0], reason=error.strerror or str(error)) from error
        if done.returncode:
            raise RejectedError("HUB-E6213", editor=command[0], reason=f"exit {done.returncode}")
        return file.read_bytes()


def checked(entry: AnyRow, after: bytes) -> Any:
    """What a correction says: an event, a command, or for a delivery its bytes. Raises RejectedError HUB-E6212 with the reason.

    An event keeps its id and its case, and a command all but its arguments.
    """
    if entry.kind == "delivery":
        return after
    from pydantic import ValidationError

    try:
        return _event(entry, after) if entry.kind == "event" else _command(entry, after)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise RejectedError("HUB-E6212", reason=": ".join(filter(None, (where, first["msg"])))) from error


def _event(entry: AnyRow, after: bytes) -> Any:
    from hub.engine.parking import lifted
    from hub.ledger.parked_events import has_case
    from schemas.decoding import read
    from schemas.envelope import MAX_BYTES, Event
    from schemas.registry import event_spec

    event = Event.from_json(after)
    if len(event.to_json()) > MAX_BYTES:
        raise RejectedError("HUB-E6212", reason=f"{len(event.to_json())} > {MAX_BYTES} bytes")
    _same("partitionkey", event.case, entry.case_id if has_case(entry) else event.case)
    _same("id", event.id, entry.ref.removeprefix("event/") if entry.ref.startswith("event/") else event.id)
    event_spec(event.type).model.model_validate(lifted(read(after)).data)
    return event


def _command(entry: AnyRow, after: bytes) -> Any:
    from schemas.envelope import Command

    command, came = Command.from_json(after), Command.from_json(entry.body)
    for name in Command.model_fields:
        if name != "arguments":
            _same(name, getattr(command, name), getattr(came, name))
    return command


def _same(field: str, now: Any, was: Any) -> None:
    if now != was:
        raise RejectedError("HUB-E6212", reason=f"{field}: {was} → {now}")


def record(conn: Connection, entry: AnyRow, corrected: Any, asking: Asking) -> str | None:
    """Record a checked correction; the id of its event, None when it stands there already."""
    from hub.ledger import parked_deliveries, parked_events, parked_work

    if entry.kind == "delivery":
        return parked_deliveries.edit(conn, entry, corrected, asking)
    if entry.kind == "command":
        return parked_work.edit(conn, entry, corrected, asking)
    return parked_events.edit(conn, entry, corrected, asking)


def asking(by: str, reason: str | None) -> Asking:
    """Who asks, now."""
    from hub.ledger.parked_events import Asking

    return Asking(datetime.now(UTC), by, reason)
