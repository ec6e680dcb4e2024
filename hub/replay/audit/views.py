"""The shared view beside the audit's own fold: the last word on every object, in every case that tells of it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import orjson

from hub.log.event_log import EventLog, Record, read_to_end
from hub.replay.audit.cases import CrossPartitionFacts
from hub.replay.audit.fold import VIEWED, digest
from hub.replay.audit.report import Report
from schemas.topics import VIEWS, Topic


@dataclass(frozen=True)
class _Said:
    digest: bytes
    event: str
    time: float


_Words = dict[str, dict[str, _Said]]
"""Reference → case → the last word."""


def compare(report: Report, log: EventLog, told: CrossPartitionFacts, late: float) -> None:
    """Note every object whose view is wrong, missing, or of nothing. To be called after `told` was read."""
    report.counts["view_objects"] = 0
    for kind, topic in VIEWS.items():
        said, erased, unreadable = _read(log, topic)
        report.counts["view_objects"] += len(said)
        wrong = [
            f"{ref} ({case})"
            for ref, cases in said.items()
            for case, one in cases.items()
            if one.digest != told.views.get(ref, {}).get(case) and not _is_on_its_way(one, told.known, told.ahead, late)
        ]
        missing = [ref for ref in told.views if ref.partition("/")[0] == kind and ref not in said and ref not in erased]
        report.find("views that are not the fold of the log", wrong, topic.name)
        report.find("objects that the shared view lacks", missing, topic.name)
        report.find("records of the shared view that cannot be read", unreadable, topic.name)


def _is_on_its_way(said: _Said, known: Container[str], ahead: Container[str], late: float) -> bool:
    """Views are sent before the state that we compare with, and the hub goes on while we read."""
    return said.event in ahead or (said.event not in known and said.time >= late)


def _read(log: EventLog, topic: Topic) -> tuple[_Words, set[str], list[str]]:
    """The last words; the objects that were erased; the places of what is no view."""
    said: _Words = {}
    erased, unreadable = set[str](), list[str]()
    for batch in read_to_end(log, topic.name, log.starts(topic.name)):
        for record in batch:
            ref = (record.key or b"").decode(errors="replace")
            if record.value is None:
                erased.add(ref)
                said.pop(ref, None)
            elif not _take(said, ref, record):
                unreadable.append(f"{topic.name}/{record.partition}/{record.offset}")
    return said, erased, unreadable


def _take(said: _Words, ref: str, record: Record) -> bool:
    try:
        value = orjson.loads(record.value or b"")
        one = _Said(digest(value, VIEWED), str(value["event"]), record.time)
        said.setdefault(ref, {})[str(value["case"])] = one
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return True
