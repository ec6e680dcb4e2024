"""Announces changed rule files in the log, and follows the announcements there: every worker applies the rules announced last.

A home announces its files when they differ from its last announcement; that is a deployment. The last announcement in the log
decides new events at every worker, whatever rule files are on the worker's own disk.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import orjson
import structlog

from hub.engine.step import EmitEvent
from hub.errors import FatalError, HubError
from hub.log.event_log import EventLog, LogWriter
from hub.processor.rule_history import RuleHistory
from hub.processor.rules_in_force import InForceRules, RulesTarget
from hub.rules.book import Files, RuleBook, announcement
from hub.rules.history import Announced, Sets
from hub.rules.reload import RuleStore, write_broken_files
from hub.runtime.failpoints import failpoint
from hub.runtime.files import write_atomically
from schemas.envelope import format_time
from schemas.topics import COMMANDS, EVENTS, STATE

POLL_INTERVAL_S = 1.0
"""Seconds between two checks of the files and the log."""

log = structlog.get_logger("hub.processor")


class LastAnnouncement(NamedTuple):
    """The rule sets that a home last announced or found in force, and the id of the log's last announcement then."""

    sets: Sets
    announced: str


class RuleAnnouncer:
    """Watches the rule files and the log.

    `announced_file` stores this home's last announcement, `broken_file` the errors in its rule files.
    """

    def __init__(
        self,
        store: RuleStore,
        history: RuleHistory,
        book: RuleBook,
        events: EventLog,
        writer: LogWriter,
        announced_file: Path,
        broken_file: Path,
    ) -> None:
        self._store, self._history, self._book = store, history, book
        self._events, self._writer, self._announced_file, self._broken_file = (
            events,
            writer,
            announced_file,
            broken_file,
        )
        self._files = Files.of(store.current, store.texts)
        self._warned_sets: Sets | None = None
        self._followed: str | None = None
        self._failing: str | None = None

    def begin(self) -> InForceRules:
        """Read the history, announce changed files, and return the rules in force. Blocks; raises FatalError if none build."""
        self._report_errors(self._store.errors)
        self._history.refresh()
        self._announce()
        for announced in reversed(self._book.history.announcements()):
            target = self._target(announced)
            if target is not None:
                return InForceRules(self._book, target)
        raise FatalError("HUB-E3191", ruleset=self._files.sets.ruleset[:12])

    async def watch(self, rules: InForceRules) -> None:
        """Poll for ever. Errors in a rule file are logged and change nothing else."""
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            try:
                target = await asyncio.to_thread(self._poll)
            except HubError as error:
                self._warn_once("rules.not-told", **error.fields())
                continue
            except (
                OSError
            ) as error:  # a full disk: the announcement is sent again once there is space, with the same ids
                self._warn_once("rules.not-noted", reason=str(error))
                continue
            self._failing = None
            if target is not None and target.sets != rules.target.sets:
                rules.target = target
                log.info("rules.followed", ruleset=target.sets.ruleset[:12], world=target.sets.world[:12])
            rules.overtaken()

    def _warn_once(self, what: str, **facts: str) -> None:
        """Log a repeated failure once."""
        if self._failing != what:
            self._failing = what
            log.warning(what, **facts)

    def _poll(self) -> RulesTarget | None:
        """The rules in force from now on; None if nothing has changed."""
        reload = self._store.reload_if_changed()
        if reload is not None:
            self._report_errors(reload.errors)
        if reload is not None and not reload.errors:
            self._files = Files.of(self._store.current, self._store.texts)
            log.info("rules.reloaded", changed=[change.name for change in reload.changes])
        self._history.look()
        self._announce()
        last = self._book.history.latest
        if last is None or last.id == self._followed:
            return None
        self._followed = last.id
        return self._target(last)

    def _target(self, announced: Announced) -> RulesTarget | None:
        """The announced rules; None, with an error in this program's log, for those that cannot be built here."""
        if announced.sets == self._files.sets:
            return RulesTarget(announced.sets, self._store.rules)
        made = self._book.made(announced.sets)
        for error in made.lost if made is not None else (FatalError("HUB-E3191", ruleset=announced.sets.ruleset[:12]),):
            log.error("rules.not-followed", **error.fields())
        return RulesTarget(announced.sets, made.rules) if made is not None and not made.lost else None

    def _announce(self) -> None:
        """Announce the files, if their change is a deployment."""
        history, own = self._book.history, self._files.sets
        last, stored = history.latest, self._last_announced()
        if last is not None and (last.sets == own or self._is_no_deployment(stored)):
            self._store_announcement(stored, LastAnnouncement(own, last.id))
            if last.sets != own:
                self._warn_differs(last)
            return
        events = announcement(
            self._files, history, format_time(datetime.now(UTC)), {} if last else self._unknown_before()
        )
        self._writer.append([EmitEvent(event).record() for event in events])
        self._history.add(events)
        failpoint("worker.rules-announced")
        self._store_announcement(stored, LastAnnouncement(own, events[-1].id))
        log.info("rules.announced", ruleset=own.ruleset[:12], world=own.world[:12])

    def _is_no_deployment(self, stored: LastAnnouncement | None) -> bool:
        """Whether these files are no deployment: this home has announced them, or they are an old copy of announced ones.

        They are announced again to a log that has lost the announcement (it was restored from an older copy).
        """
        history, own = self._book.history, self._files.sets
        if stored is None:
            return history.announced(own) is not None
        return stored.sets == own and any(entry.id == stored.announced for entry in history.announcements())

    def _unknown_before(self) -> Mapping[int, int]:
        """For a log without announcements: partition → the offset up to which unknown rules may have decided records."""
        ends, states = self._events.ends(EVENTS.name), self._events.ends(STATE.name)
        if not any(states.values()):
            return ends if any(self._events.ends(COMMANDS.name).values()) else {}
        return {partition: end for partition, end in ends.items() if states.get(partition)}

    def _warn_differs(self, last: Announced) -> None:
        if self._warned_sets != last.sets:
            self._warned_sets = last.sets
            error = FatalError("HUB-W3192", mine=self._files.sets.ruleset[:12], ruleset=last.sets.ruleset[:12])
            log.warning("rules.differ", **error.fields())

    def _report_errors(self, errors: tuple[HubError, ...]) -> None:
        for error in errors:
            log.error("rules.broken", **error.fields())
        write_broken_files(self._broken_file, errors)

    def _last_announced(self) -> LastAnnouncement | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            stored = orjson.loads(self._announced_file.read_bytes())
            return LastAnnouncement(Sets(str(stored["ruleset"]), str(stored["world"])), str(stored["announced"]))
        return None

    def _store_announcement(self, before: LastAnnouncement | None, now: LastAnnouncement) -> None:
        if before == now:
            return
        write_atomically(self._announced_file, orjson.dumps({**now.sets._asdict(), "announced": now.announced}))
