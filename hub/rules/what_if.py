"""What the rules would ask for: events tried one after the other, in memory. Nothing outside is called, nothing is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hub.case import Case
from hub.errors import FatalError, RejectedError
from hub.outputs import Derive
from hub.rules.checking import check, dotted
from hub.rules.explaining import Verdict, explain
from hub.rules.people import People
from hub.rules.places import Located, read_yaml
from hub.rules.places import Path as Keys
from hub.rules.rule_set import RuleSet
from hub.rules.trial import MAX_EVENTS, Given, given_event
from hub.step import step
from schemas.event import Event


@dataclass(frozen=True)
class Tried:
    """One event, and what each rule that waits for its type made of it."""

    event: Event
    verdicts: tuple[Verdict, ...]


def folded(rules: RuleSet, events: Iterable[Event]) -> Case | None:
    """A case after these events of it; one that fails changes nothing."""
    case: Case | None = None
    for event in events:
        try:
            case = step(case, event, rules).case
        except RejectedError:
            continue
    return case


def try_events(rules: RuleSet, events: Sequence[Event], case: Case | None = None) -> list[Tried]:
    """Try events in their order, with those that the hub derives of them. `case` is what the first one's case was before."""
    cases = {case.id: case} if case is not None else {}
    waiting, tried = list(events), list[Tried]()
    for event in waiting[:MAX_EVENTS]:
        before = cases.get(event.case)
        if before is not None and before.has_seen(event):
            continue
        tried.append(Tried(event, tuple(explain(rules, before, event))))
        try:
            done = step(before, event, rules)
        except RejectedError:
            continue
        cases[event.case] = done.case
        waiting += [output.event for output in done.outputs if isinstance(output, Derive)]
    return tried


def read_events(file: Path, people: People, environ: Mapping[str, str]) -> list[Event]:
    """The events of a JSON or YAML file: one, a list, or under `given`; whole CloudEvents, or as short as in `*.test.yaml`.

    Raises FatalError with the place of the first mistake.
    """
    located = read_yaml(file, file.name, environ).sound()
    base: Keys = ("given",) if isinstance(located.value, dict) and "given" in located.value else ()
    value = located.value["given"] if base else located.value
    if not isinstance(value, list):
        return [_event(located, base, value, people, 0)]
    return [_event(located, (*base, at), each, people, at) for at, each in enumerate(value)]


def _event(located: Located, path: Keys, value: Any, people: People, at: int) -> Event:
    try:
        if isinstance(value, dict) and "specversion" in value:
            return Event.model_validate(value)
        given, errors = check(Given, located, path, located.file)
        if given is None:
            raise min(errors, key=lambda error: error.code != "HUB-E3005")  # what is missing is often there, misspelt
        return given_event(given, people, at)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = (*path, *first["loc"])
        raise FatalError("HUB-E3184", place=located.place(where), field=dotted(where), reason=first["msg"]) from error
    except ValueError as error:
        raise FatalError("HUB-E3150", place=located.place((*path, "time")), time=value.get("time")) from error
