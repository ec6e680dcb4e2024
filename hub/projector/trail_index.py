"""The index `trail`: the rows that each event adds to the trail's tables. `hub.replay` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hub.kit.projection import EventRecord, Index, Rows
from hub.kit.records import NUL, NUL_REPLACEMENT
from hub.projector.trail import NAME, TABLES, VERSION, of_id, of_name, of_thing, of_type, of_word

UNNAMED = frozenset({"command", "request"})
"""Kinds of subject that end in a command's id, not indexed by bare id: they are many, and the ledger knows each of them."""


def rows(found: Sequence[EventRecord]) -> Sequence[Rows]:
    """Rows for the tables places, words and types, in the order of `TABLES`."""
    places: list[tuple[Any, ...]] = []
    subjects: dict[tuple[str, str], None] = {}
    types: dict[str, None] = {}
    for record, event in found:
        case, subject, cause = event.partitionkey, event.subject, event.causationid
        places.append(
            (
                record.partition,
                record.offset,
                round(record.time * 1000),
                of_type(event.type),
                of_id(event.id),
                of_name(case),
                of_name(subject),
                of_id(cause) if cause is not None else None,
            )
        )
        subjects[subject, case] = None
        types[event.type] = None
    words = [_word(*each) for each in subjects if each[0].partition("/")[0] not in UNNAMED]
    return places, words, [(of_type(name), name) for name in types]


def _word(subject: str, case: str) -> tuple[Any, ...]:
    ref, case_id = subject.replace(NUL, NUL_REPLACEMENT), case.replace(NUL, NUL_REPLACEMENT)
    return of_word(subject), of_thing(subject, case), ref, case_id if case_id != ref else None


INDEX = Index(name=NAME, version=VERSION, tables=TABLES, rows=rows)
