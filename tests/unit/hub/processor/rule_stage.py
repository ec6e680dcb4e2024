"""Workers over a log in memory, each with a home on a disk of its own: what is announced, judged and asked for, with no broker."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

from hub.home import RULES_ANNOUNCED, RULES_BROKEN, Home
from hub.log.event_log import Outgoing
from hub.log.memory_log import MemoryLog
from hub.log.partitioner import partition_of
from hub.processor.app import Processor
from hub.processor.rule_announcements import RuleAnnouncer
from hub.processor.rule_history import RuleHistory
from hub.processor.rules_in_force import InForceRules
from hub.processor.source import Chunk, PartitionThreads
from hub.processor.state import PartitionState
from hub.rules.book import RuleBook
from hub.rules.history import RULES_KEY, RuleTimeline
from schemas.envelope import Event
from schemas.topics import COMMANDS, EVENTS, STATE

CONFIG = "connectors: {pm: {use: http}, im: {use: http}}\n"
PEOPLE = "people:\n  li.lei: {name: 李雷, roles: [lead], accounts: {pm: '7'}}\n"
RULE = "rule: %s\ntitle: {zh: 赢, en: Won}\nowner: x\nwhen: crm.opportunity.won\n"
TASK = "do:\n  - task.create: {in: pm, title: '%s', assignee: \"${role('lead')}\"}\n"


class Inline(PartitionThreads):
    """Lanes without threads."""

    async def run(self, partition: int | None, work: Any, *args: Any, **kwargs: Any) -> Any:
        return work(*args, **kwargs)


class Stage:
    """One log, and the homes whose workers share it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, MemoryLog()
        self.committed: dict[int, int] = {}
        self.relayed = 0

    def home(self, name: str = "home", **rules: str) -> Path:
        """A home with these rules; the files that are there stay."""
        home = self.folder / name
        (home / "rules").mkdir(parents=True, exist_ok=True)
        write(home / "hub.yaml", CONFIG)
        if not (home / "people.yaml").exists():
            write(home / "people.yaml", PEOPLE)
        for rule, text in rules.items():
            write(home / "rules" / f"{rule}.yaml", RULE % rule.replace("_", "-") + text)
        return home

    def worker(self, home: Path, partitions: Iterable[int] = range(12), forgets: timedelta | None = None) -> Worker:
        return Worker(self, home, set(partitions), forgets)

    def append(self, events: Iterable[Event]) -> None:
        self.log.writer().append([Outgoing(EVENTS.name, event.case.encode(), event.to_json()) for event in events])

    def relay(self) -> None:
        """Carry the rules' events on to `hub.events`, each once, as executor, outbox and relay do."""
        there = self.log.records[COMMANDS.name, partition_of(RULES_KEY, 12)]
        known = {orjson.loads(r.value or b"")["id"] for r in self.log.records[EVENTS.name, partition_of(RULES_KEY, 12)]}
        for record in there[self.relayed :]:
            told = orjson.loads(record.value or b"")
            if record.key == RULES_KEY and told["event"]["id"] not in known:
                known.add(told["event"]["id"])
                self.append([Event.model_validate(told["event"])])
        self.relayed = len(there)

    def forget(self) -> None:
        """As `hub repair state`."""
        self.committed = {}
        for topic, partition in list(self.log.records):
            if topic == STATE.name:
                del self.log.records[topic, partition]

    def commands(self) -> dict[str, dict[str, Any]]:
        """All that was ever asked for, by id."""
        told = [
            orjson.loads(r.value or b"")
            for (topic, _), rs in self.log.records.items()
            if topic == COMMANDS.name
            for r in rs
        ]
        return {each["id"]: each for each in told if "record" not in each}

    def notes(self, kind: str) -> list[dict[str, Any]]:
        """Records of a kind on `hub.commands`."""
        told = [
            orjson.loads(r.value or b"")
            for (topic, _), rs in self.log.records.items()
            if topic == COMMANDS.name
            for r in rs
        ]
        return [each for each in told if each.get("record") == kind]

    def history(self) -> RuleTimeline:
        """As a reader from outside sees it."""
        read = RuleHistory(self.log)
        read.refresh()
        return read.history


@dataclass
class Worker:
    """One worker: Faust's part is played here, all the rest is the product's."""

    stage: Stage
    home: Path
    mine: set[int]
    forgets: timedelta | None = None
    processor: Processor = field(init=False)
    judged: InForceRules = field(init=False)

    def __post_init__(self) -> None:
        home = Home.load(self.home, {"HUB_DATA": str(self.home / ".hub")})
        log = self.stage.log
        history = RuleHistory(log, home.data / "rules-history.json")
        book = RuleBook(history.history, home.environ)
        told, broken = home.data / RULES_ANNOUNCED, home.data / RULES_BROKEN
        self.news = RuleAnnouncer(home.rule_store(), history, book, log, log.writer(), told, broken)
        self.judged = self.news.begin()
        self.processor = Processor(
            log, self.judged, log.writer(), learn_rules=history.catch_up, forgets=self.forgets, threads=Inline()
        )
        self.take(self.mine)

    def take(self, partitions: Iterable[int]) -> None:
        """Have these partitions from now on."""
        self.mine = set(partitions)
        states = self.processor.states
        self.processor.states = {p: states.get(p) or PartitionState(p) for p in self.mine}
        done(self.processor._restore(self.processor.states))

    def look(self) -> None:
        """One look at files and log."""
        target = self.news._poll()
        if target is not None:
            self.judged.target = target
        self.judged.overtaken()

    def fold(self, size: int = 1000) -> None:
        """All that has come, in chunks of this size."""
        for partition in sorted(self.mine):
            while records := self.stage.log.records[EVENTS.name, partition][self.stage.committed.get(partition, 0) :][
                :size
            ]:
                chunk = Chunk(partition, records, records[-1].offset + 1)
                done(self.processor.run(chunk))
                assert chunk.finished
                self.stage.committed[partition] = chunk.next_offset


def write(file: Path, text: str) -> None:
    """Write with a time of its own, so that no clock's step hides the change."""
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(text, "utf-8")
    os.utime(file, ns=(before + 1_000_000_000, before + 1_000_000_000))


def done(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine that never has to wait returns."""
    try:
        coroutine.send(None)
    except StopIteration as stopped:
        return stopped.value
    raise AssertionError("it waits")
