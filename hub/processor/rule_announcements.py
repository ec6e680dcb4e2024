"""Rules that change while the hub runs, or while it did not: announced in the log, and followed from there by every worker.

A home announces its files when they differ from what it announced last; that is a deployment. What was announced last in the log
judges new events at every worker, whatever lies on the worker's own disk.
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

from hub.engine.step import Derive
from hub.errors import FatalError, HubError
from hub.log.event_log import EventLog, LogWriter
from hub.processor.rule_history import RuleHistory
from hub.processor.rules_in_force import InForceRules, RulesTarget
from hub.rules.book import Files, RuleBook, announcement
from hub.rules.history import Announced, Sets
from hub.rules.reload import RuleStore, note_broken
from hub.runtime.failpoints import failpoint
from hub.runtime.files import write_whole
from schemas.envelope import format_time
from schemas.topics import COMMANDS, EVENTS, STATE

SECONDS = 1.0
"""Between two looks at the files, and at the log."""

log = structlog.get_logger("hub.processor")


class Noted(NamedTuple):
    """What a home has announced last, or found in force, and the announcement in the log by then."""

    sets: Sets
    announced: str


class RuleNews:
    """Looks at the rule files and at the log.

    `told` is a file that remembers what this home has announced last, `broken` one that says what is wrong with its files.
    """

    def __init__(
        self,
        store: RuleStore,
        history: RuleHistory,
        book: RuleBook,
        events: EventLog,
        writer: LogWriter,
        told: Path,
        broken: Path,
    ) -> None:
        self._store, self._history, self._book = store, history, book
        self._events, self._writer, self._told, self._broken = events, writer, told, broken
        self._files = Files.of(store.current, store.texts)
        self._complained: Sets | None = None
        self._followed: str | None = None
        self._failing: str | None = None

    def begin(self) -> InForceRules:
        """Read the history, announce what is new, and choose what judges. Blocks; raises FatalError when nothing can be made."""
        self._say(self._store.errors)
        self._history.refresh()
        self._announce()
        for announced in reversed(self._book.history.announcements()):
            target = self._target(announced)
            if target is not None:
                return InForceRules(self._book, target)
        raise FatalError("HUB-E3191", ruleset=self._files.sets.ruleset[:12])

    async def watch(self, judged: InForceRules) -> None:
        """Look, again and again. A file that is broken changes nothing but the log of this program."""
        while True:
            await asyncio.sleep(SECONDS)
            try:
                target = await asyncio.to_thread(self._look)
            except HubError as error:
                self._away("rules.not-told", **error.fields())
                continue
            except OSError as error:  # a full disk: told again once there is room, under the same ids
                self._away("rules.not-noted", reason=str(error))
                continue
            self._failing = None
            if target is not None and target.sets != judged.target.sets:
                judged.target = target
                log.info("rules.followed", ruleset=target.sets.ruleset[:12], world=target.sets.world[:12])
            judged.overtaken()

    def _away(self, what: str, **facts: str) -> None:
        """Tell once that something keeps failing."""
        if self._failing != what:
            self._failing = what
            log.warning(what, **facts)

    def _look(self) -> RulesTarget | None:
        """What judges from now on, None where nothing has changed."""
        found = self._store.reload_if_changed()
        if found is not None:
            self._say(found.errors)
        if found is not None and not found.errors:
            self._files = Files.of(self._store.current, self._store.texts)
            log.info("rules.reloaded", changed=[change.name for change in found.changes])
        self._history.look()
        self._announce()
        last = self._book.history.latest
        if last is None or last.id == self._followed:
            return None
        self._followed = last.id
        return self._target(last)

    def _target(self, announced: Announced) -> RulesTarget | None:
        """These rules; None for what cannot be made here, of which this program's log tells."""
        if announced.sets == self._files.sets:
            return RulesTarget(announced.sets, self._store.rules)
        made = self._book.made(announced.sets)
        for error in made.lost if made is not None else (FatalError("HUB-E3191", ruleset=announced.sets.ruleset[:12]),):
            log.error("rules.not-followed", **error.fields())
        return RulesTarget(announced.sets, made.rules) if made is not None and not made.lost else None

    def _announce(self) -> None:
        """Put the files in force, if that is what their change means."""
        history, mine = self._book.history, self._files.sets
        last, noted = history.latest, self._last_told()
        if last is not None and (last.sets == mine or self._is_no_news(noted)):
            self._note(noted, Noted(mine, last.id))
            if last.sets != mine:
                self._complain(last)
            return
        events = announcement(
            self._files, history, format_time(datetime.now(UTC)), {} if last else self._unknown_before()
        )
        self._writer.append([Derive(event).record() for event in events])
        self._history.add(events)
        failpoint("worker.rules-announced")
        self._note(noted, Noted(mine, events[-1].id))
        log.info("rules.announced", ruleset=mine.ruleset[:12], world=mine.world[:12])

    def _is_no_news(self, noted: Noted | None) -> bool:
        """Whether these files are no deployment: this home has announced them, or they are an old copy of what once was.

        A log that has lost what was announced (it goes on from an older copy) is told again.
        """
        history, mine = self._book.history, self._files.sets
        if noted is None:
            return history.announced(mine) is not None
        return noted.sets == mine and any(entry.id == noted.announced for entry in history.announcements())

    def _unknown_before(self) -> Mapping[int, int]:
        """In a log without any announcement: up to where rules may have judged that the log does not hold."""
        ends, states = self._events.ends(EVENTS.name), self._events.ends(STATE.name)
        if not any(states.values()):
            return ends if any(self._events.ends(COMMANDS.name).values()) else {}
        return {partition: end for partition, end in ends.items() if states.get(partition)}

    def _complain(self, last: Announced) -> None:
        if self._complained != last.sets:
            self._complained = last.sets
            error = FatalError("HUB-W3192", mine=self._files.sets.ruleset[:12], ruleset=last.sets.ruleset[:12])
            log.warning("rules.differ", **error.fields())

    def _say(self, errors: tuple[HubError, ...]) -> None:
        for error in errors:
            log.error("rules.broken", **error.fields())
        note_broken(self._broken, errors)

    def _last_told(self) -> Noted | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told = orjson.loads(self._told.read_bytes())
            return Noted(Sets(str(told["ruleset"]), str(told["world"])), str(told["announced"]))
        return None

    def _note(self, before: Noted | None, now: Noted) -> None:
        if before == now:
            return
        write_whole(self._told, orjson.dumps({**now.sets._asdict(), "announced": now.announced}))
