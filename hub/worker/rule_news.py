"""Rules that change while the hub runs, or while it did not: they hold from the next chunk on, and the log tells of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import structlog

from hub.errors import HubError
from hub.outputs import Derive
from hub.rules.reload import RuleChange, RuleStore, changed
from hub.worker.app import Processor
from schemas.catalog import event_spec
from schemas.event import Event, derived_id, stamp

SECONDS = 1.0
"""Between two looks at the files."""

log = structlog.get_logger("hub.worker")


class RuleNews:
    """Looks at the rule files; `told` is a file that remembers which digests the log has been told of."""

    def __init__(self, store: RuleStore, processor: Processor, told: Path) -> None:
        self._store, self._processor, self._told = store, processor, told

    async def watch(self) -> None:
        """Look, again and again. A file that is broken changes nothing but the log of this program."""
        self._say(self._store.errors)
        while True:
            try:
                await asyncio.to_thread(self._tell)
                await asyncio.sleep(SECONDS)
                await asyncio.to_thread(self._look)
            except HubError as error:
                log.warning("rules.not-told", **error.fields())
                await asyncio.sleep(SECONDS)
            except OSError as error:  # a full disk: told again once there is room, under the same ids
                log.warning("rules.not-noted", reason=str(error))
                await asyncio.sleep(SECONDS)

    def _look(self) -> None:
        found = self._store.reload_if_changed()
        if found is None:
            return
        self._say(found.errors)
        if not found.errors:
            self._processor.rules = self._store.rules
            log.info("rules.reloaded", changed=[change.name for change in found.changes])

    def _say(self, errors: tuple[HubError, ...]) -> None:
        for error in errors:
            log.error("rules.broken", **error.fields())

    def _tell(self) -> None:
        """Put what changed since the last telling into the log. Told twice after a crash, it is the same event."""
        known = self._known()
        digests = dict(self._store.rules.digests())
        changes = changed(known["digests"], digests)
        if not changes:
            return
        serial = known["serial"] + 1
        records = [Derive(_event(change, serial)).record() for change in changes]
        self._processor.writer.append(records)
        draft = self._told.with_suffix(".new")
        draft.write_bytes(orjson.dumps({"serial": serial, "digests": digests}))
        draft.replace(self._told)

    def _known(self) -> dict[str, Any]:
        try:
            known: dict[str, Any] = orjson.loads(self._told.read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return {"serial": 0, "digests": {}}
        return known


def _event(change: RuleChange, serial: int) -> Event:
    now, subject = stamp(datetime.now(UTC)), f"rule/hub/{change.name}"
    return Event(
        id=derived_id("rule", change.name, change.previous or "", change.digest or "", str(serial)),
        source="/hub/rules",
        type="hub.rule.changed",
        subject=subject,
        time=now,
        recordedtime=now,
        dataschema=event_spec("hub.rule.changed").dataschema,
        partitionkey=subject,
        correlationid=subject,
        data={"digest": change.digest, "previous": change.previous},
    )
