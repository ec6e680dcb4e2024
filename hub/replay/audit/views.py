"""Compares the shared view with the audit's own fold: the latest record of every entity, in every case that has it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import orjson

from hub.log.event_log import EventLog, Record, read_to_end
from hub.replay.audit.cases import CrossPartitionFacts
from hub.replay.audit.fold import VIEW_FIELDS, digest
from hub.replay.audit.report import Report
from schemas.topics import VIEWS, Topic


@dataclass(frozen=True)
class _ViewRecord:
    digest: bytes
    event: str
    time: float


_LatestRecords = dict[str, dict[str, _ViewRecord]]
"""Reference → case → its latest record in the view."""


def compare(report: Report, log: EventLog, facts: CrossPartitionFacts, late: float) -> None:
    """Report every entity whose view record is wrong, missing or extra. Call it after `facts` were read."""
    report.counts["view_objects"] = 0
    for kind, topic in VIEWS.items():
        latest, erased, unreadable = _read(log, topic)
        report.counts["view_objects"] += len(latest)
        wrong = [
            f"{ref} ({case})"
            for ref, cases in latest.items()
            for case, view in cases.items()
            if view.digest != facts.views.get(ref, {}).get(case)
            and not _is_in_flight(view, facts.known, facts.ahead, late)
        ]
        missing = [
            ref for ref in facts.views if ref.partition("/")[0] == kind and ref not in latest and ref not in erased
        ]
        report.find("views that are not the fold of the log", wrong, topic.name)
        report.find("objects that the shared view lacks", missing, topic.name)
        report.find("records of the shared view that cannot be read", unreadable, topic.name)


def _is_in_flight(view: _ViewRecord, known: Container[str], ahead: Container[str], late: float) -> bool:
    """Whether a difference is expected: views are sent before the state that we compare with, and the hub runs while we read."""
    return view.event in ahead or (view.event not in known and view.time >= late)


def _read(log: EventLog, topic: Topic) -> tuple[_LatestRecords, set[str], list[str]]:
    """The latest record of each entity and case; the refs of erased entities; the positions of records that are no view."""
    latest: _LatestRecords = {}
    erased, unreadable = set[str](), list[str]()
    for batch in read_to_end(log, topic.name, log.starts(topic.name)):
        for record in batch:
            ref = (record.key or b"").decode(errors="replace")
            if record.value is None:
                erased.add(ref)
                latest.pop(ref, None)
            elif not _add(latest, ref, record):
                unreadable.append(f"{topic.name}/{record.partition}/{record.offset}")
    return latest, erased, unreadable


def _add(latest: _LatestRecords, ref: str, record: Record) -> bool:
    try:
        value = orjson.loads(record.value or b"")
        view = _ViewRecord(digest(value, VIEW_FIELDS), str(value["event"]), record.time)
        latest.setdefault(ref, {})[str(value["case"])] = view
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return True
