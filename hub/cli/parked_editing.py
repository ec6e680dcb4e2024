"""Corrects parked work: by an editor, a file or settings; validated and shown as a diff; then recorded as an event."""

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
    from hub.ledger.parked_events import OperatorRequest


def current_bytes(hub: RunningHub, entry: AnyRow) -> bytes:
    """The bytes that the next retry reads; for a record that was too large for the ledger, all of it from the log."""
    if entry.correction is not None or entry.code != "HUB-E6003" or not entry.ref.startswith("record/"):
        return parked_bytes.current_bytes(entry)
    from hub.log.event_log import record_at

    topic, partition, offset = entry.ref.removeprefix("record/").rsplit("/", 2)
    return record_at(hub.log(), topic, int(partition), int(offset))


def edited(before: bytes, secrets: set[str], file: Path | None, settings: Sequence[str]) -> bytes:
    """The corrected bytes: those of a file, or with settings put in, or as the editor left them.

    JSON is edited with its secrets masked; what was left masked is put back. Raises RejectedError for an invalid correction.
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
    """The corrected event or command, or for a delivery its bytes. Raises RejectedError HUB-E6212 with the reason.

    An event must keep its id and its case; of a command only the arguments may change.
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
    _require_same("partitionkey", event.case, entry.case_id if has_case(entry) else event.case)
    _require_same("id", event.id, entry.ref.removeprefix("event/") if entry.ref.startswith("event/") else event.id)
    event_spec(event.type).model.model_validate(lifted(read(after)).data)
    return event


def _command(entry: AnyRow, after: bytes) -> Any:
    from schemas.envelope import Command

    command, original = Command.from_json(after), Command.from_json(entry.body)
    for name in Command.model_fields:
        if name != "arguments":
            _require_same(name, getattr(command, name), getattr(original, name))
    return command


def _require_same(field: str, now: Any, was: Any) -> None:
    if now != was:
        raise RejectedError("HUB-E6212", reason=f"{field}: {was} → {now}")


def record(conn: Connection, entry: AnyRow, corrected: Any, request: OperatorRequest) -> str | None:
    """Record a validated correction; returns the id of its event, None when it is recorded already."""
    from hub.ledger import parked_deliveries, parked_events, parked_work

    if entry.kind == "delivery":
        return parked_deliveries.edit(conn, entry, corrected, request)
    if entry.kind == "command":
        return parked_work.edit(conn, entry, corrected, request)
    return parked_events.edit(conn, entry, corrected, request)


def operator_request(by: str, reason: str | None) -> OperatorRequest:
    """A request of this person at the current time."""
    from hub.ledger.parked_events import OperatorRequest

    return OperatorRequest(datetime.now(UTC), by, reason)
