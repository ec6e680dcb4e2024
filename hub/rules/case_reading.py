"""The part of a case that rules read: all of a small case; of a large one only the entities that the rules name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from hub.config.strict_json import Json
from hub.engine.case import Case
from hub.errors import RejectedError
from hub.expressions.reading import PathRead, follow
from hub.rules.rule import Rule

MAX_OBJECTS_READ_WHOLE = 1000
"""The most entities of a large case that are read for a rule that names none."""
MAX_NESTING = 5
"""How many levels deep a rule may name an entity by a field of another: `case.entities[case.entities[…].data.project]`."""


def case_value(case: Case, rules: Sequence[Rule], event: Mapping[str, Json]) -> dict[str, Json]:
    """The case as these rules read it for this event. Raises RejectedError for a rule that reads all of too large a case."""
    if case.apart is msgspec.UNSET:
        return case.as_value()
    for rule in rules:
        if case.count > MAX_OBJECTS_READ_WHOLE and any(_is_whole(read) for read in rule.case_reads):
            raise RejectedError(
                "HUB-E6028",
                place=rule.place,
                rule=rule.name,
                case=case.id,
                count=case.count,
                most=MAX_OBJECTS_READ_WHOLE,
            )
    reads = [read for rule in rules for read in rule.case_reads]
    if any(map(_is_whole, reads)):
        return case.as_value()
    refs, value = set[str](), case.as_value(())
    for _ in range(MAX_NESTING):
        named = set(_named(reads, {"event": event, "case": value}))
        if named <= refs:
            break
        refs |= named
        value = case.as_value(refs)
    return value


def _is_whole(read: PathRead) -> bool:
    """Whether it reads `case` or `case.entities` as a whole, so that no single entity can be loaded in advance."""
    return not read.parts or (read.parts[0] == "entities" and len(read.parts) == 1)


def _named(reads: Iterable[PathRead], values: Mapping[str, Json]) -> Iterable[str]:
    for read in reads:
        if len(read.parts) > 1 and read.parts[0] == "entities":
            part = read.parts[1]
            ref = follow(part, values) if isinstance(part, PathRead) else part
            if isinstance(ref, str):
                yield ref
