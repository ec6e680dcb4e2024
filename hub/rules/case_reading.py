"""What rules see of their case: all of a small one; of a large one the objects that they name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from hub.config.strict_json import Json
from hub.engine.case import Case
from hub.errors import RejectedError
from hub.expressions.reading import PathRead, follow
from hub.rules.rule import Rule

WHOLE = 1000
"""Objects of a large case that are read for a rule that names none."""
NESTED = 5
"""How deep an object may be named by a field of another: `case.entities[case.entities[…].data.project]`."""


def case_value(case: Case, rules: Sequence[Rule], event: Mapping[str, Json]) -> dict[str, Json]:
    """The case as these rules see it on this event. Raises RejectedError for a rule that reads all of a case that is too large."""
    if case.apart is msgspec.UNSET:
        return case.as_value()
    for rule in rules:
        if case.count > WHOLE and any(_is_whole(read) for read in rule.case_reads):
            raise RejectedError(
                "HUB-E6028", place=rule.place, rule=rule.name, case=case.id, count=case.count, most=WHOLE
            )
    reads = [read for rule in rules for read in rule.case_reads]
    if any(map(_is_whole, reads)):
        return case.as_value()
    refs, value = set[str](), case.as_value(())
    for _ in range(NESTED):
        named = set(_named(reads, {"event": event, "case": value}))
        if named <= refs:
            break
        refs |= named
        value = case.as_value(refs)
    return value


def _is_whole(read: PathRead) -> bool:
    """Whether it reads `case` or `case.entities` without naming an object that can be told beforehand."""
    return not read.parts or (read.parts[0] == "entities" and len(read.parts) == 1)


def _named(reads: Iterable[PathRead], values: Mapping[str, Json]) -> Iterable[str]:
    for read in reads:
        if len(read.parts) > 1 and read.parts[0] == "entities":
            part = read.parts[1]
            ref = follow(part, values) if isinstance(part, PathRead) else part
            if isinstance(ref, str):
                yield ref
