"""Trials of rules: `<name>.test.yaml` beside a rule says which events are given and which commands must follow.

    tests:
      - name: …
        given: [{type, subject, time, data, version, case, actor}]    data as a connector tells it: people by their accounts
        then: [{task.create: {title: …}}]      every command in order, with the fields to compare; `in` is the instance
        then_count: {task.create: 3}           counts by name
A file beside a rule tries that rule alone; another file tries all rules together. Modes do not count: shadow is tried too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from hub.config.expecting import Expected, wanted_day
from hub.config.strict_json import Json
from hub.config.validation import Strict, check, dotted, near, short, wrong
from hub.config.yaml_places import Located, read_yaml
from hub.engine.case import Case
from hub.engine.step import Ask, Derive, step
from hub.errors import FatalError, HubError, Place, RejectedError
from hub.people import PeopleDirectory
from hub.rules.files import rule_of, trial_files
from hub.rules.rule_set import RuleSet, make_rule_set
from schemas.envelope import OUTSIDE, Command, Event, derived_id, format_time, parse_time, promised
from schemas.registry import COMMANDS, event_spec

MAX_EVENTS = 1000
"""Of one trial, with those that the hub derives."""


class Given(Strict):
    """An event, as short as it can be told."""

    type: str
    subject: str
    time: str
    version: str | None = None
    case: str | None = None
    actor: str | None = None
    id: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class Test(Strict):
    """One trial."""

    name: str
    given: list[Given]
    then: list[dict[str, dict[str, Any]]] | None = None
    then_count: dict[str, Annotated[int, Field(ge=0)]] | None = None


class _File(Strict):
    tests: list[Test]


@dataclass(frozen=True)
class Trial:
    """How one trial went: what is wrong with it, nothing when all is as expected."""

    file: str
    name: str
    place: Place
    commands: tuple[Command, ...] = ()
    problems: tuple[HubError, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all is as expected."""
        return not self.problems


def given_event(given: Given, people: PeopleDirectory, at: int = 0) -> Event:
    """The whole event of one that is told in short; `at` tells it from others of the same subject that name no version.

    Raises ValidationError for data that its type does not allow, ValueError for a time that is none.
    """
    spec = event_spec(given.type)
    instance = given.subject.partition("/")[2].partition("/")[0]
    case = given.case or given.subject
    data = people.named(spec.model, given.data, instance)
    spec.model.model_validate(data)
    time = format_time(parse_time(given.time))
    return Event(
        id=given.id or derived_id("trial", given.type, given.subject, given.version or f"#{at}"),
        source=f"{OUTSIDE}{instance}", type=given.type, subject=given.subject, time=time, recordedtime=time,
        dataschema=spec.dataschema, partitionkey=case, correlationid=case, subjectversion=given.version,
        actor=people.named_one(given.actor, instance) if given.actor else None, data=data,
    )  # fmt: skip


def run_trials(folder: Path, rules: RuleSet, environ: Mapping[str, str]) -> list[Trial]:
    """Run every trial of a folder of rules; a file that cannot be read is one failed trial."""
    return [trial for file in trial_files(folder) for trial in _run_file(file, rules, environ)]


def check_trials(folder: Path, environ: Mapping[str, str]) -> list[HubError]:
    """The mistakes in the form of the trials, which are not run."""
    read = [_read(file, environ) for file in trial_files(folder)]
    return [
        error
        for located, told, errors in read
        for error in (*errors, *(_impossible_times(told, located) if told is not None else ()))
    ]


def _run_file(file: Path, rules: RuleSet, environ: Mapping[str, str]) -> Iterator[Trial]:
    located, told, errors = _read(file, environ)
    if told is None or errors:
        yield Trial(located.file, file.name, located.place(), problems=tuple(errors))
        return
    tried = _rules_for(file, rules)
    for at, test in enumerate(told.tests):
        yield _Run(located, ("tests", at), test, tried).trial()


def _read(file: Path, environ: Mapping[str, str]) -> tuple[Located, _File | None, list[HubError]]:
    located = read_yaml(file, f"{file.parent.name}/{file.name}", environ)
    if located.errors:
        return located, None, list(located.errors)
    told, errors = check(_File, located, (), located.file)
    return located, told, [*errors, *(_unknown_commands(told, located) if told else ())]


def _impossible_times(told: _File, located: Located) -> Iterator[FatalError]:
    for at, test in enumerate(told.tests):
        for index, given in enumerate(test.given):
            try:
                parse_time(given.time)
            except ValueError:
                yield FatalError(
                    "HUB-E3150", place=located.place(("tests", at, "given", index, "time")), time=given.time
                )
        for index, (name, fields) in (
            (index, each) for index, step_ in enumerate(test.then or ()) for each in step_.items()
        ):
            for field_, value in fields.items():
                wrong_day = _wrong_day(value)
                if wrong_day is not None:
                    yield wrong(located, ("tests", at, "then", index, name, field_), wrong_day, value)


def _wrong_day(value: object) -> Expected | None:
    """What a text that is written like a day should be; None for one that is a day, and for every other value."""
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        return None
    try:
        date.fromisoformat(value)
    except ValueError:
        return wanted_day(value)
    return None


def _unknown_commands(told: _File, located: Located) -> Iterator[FatalError]:
    for at, test in enumerate(told.tests):
        steps = [(("tests", at, "then", index), name) for index, each in enumerate(test.then or ()) for name in each]
        counted = [(("tests", at, "then_count"), name) for name in test.then_count or ()]
        for path, name in (*steps, *counted):
            if name not in COMMANDS:
                place = located.key_place((*path, name))
                yield FatalError("HUB-E3162", place=place, command=name, near=near(name, COMMANDS))


def _rules_for(file: Path, rules: RuleSet) -> RuleSet:
    own = f"{file.parent.name}/{rule_of(file)}"
    found = [rule for rule in rules.rules if rule.place.file == own] or rules.rules
    return make_rule_set((replace(rule, mode="live") for rule in found), rules.engine, rules.people)


@dataclass
class _Run:
    """One trial as it runs. Events that the hub derives come back as they do in the log."""

    located: Located
    path: tuple[str | int, ...]
    test: Test
    rules: RuleSet
    cases: dict[str, Case] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)

    def trial(self) -> Trial:
        problems: list[HubError] = []
        try:
            waiting = [self._event(at, given) for at, given in enumerate(self.test.given)]
            for count, event in enumerate(waiting):
                if count >= MAX_EVENTS:
                    raise RejectedError("HUB-E3185", most=MAX_EVENTS)
                waiting += self._fold(event)
            problems += self._compared()
        except (RejectedError, FatalError) as error:
            error.place = error.place or self.located.place(self.path)
            problems.append(error)
        except Exception as error:  # a defect of ours in one trial is no reason to keep the others' results back
            reason = f"{type(error).__name__}: {error}"
            problems.append(FatalError("HUB-E3187", place=self.located.place(self.path), reason=reason))
        place = self.located.place((*self.path, "name"))
        return Trial(self.located.file, self.test.name, place, tuple(self.commands), tuple(problems))

    def _fold(self, event: Event) -> list[Event]:
        done = step(self.cases.get(event.case), event, self.rules)
        self.cases[event.case] = done.case
        self.commands += [output.command for output in done.outputs if isinstance(output, Ask)]
        return [output.event for output in done.outputs if isinstance(output, Derive)]

    def _event(self, at: int, given: Given) -> Event:
        path = (*self.path, "given", at)
        try:
            return given_event(given, self.rules.people, at)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            in_data = error.title == event_spec(given.type).model.__name__
            where = (*path, *(("data",) if in_data else ()), *first["loc"])
            raise FatalError(
                "HUB-E3184", place=self.located.place(where), field=dotted(where), reason=first["msg"]
            ) from error
        except ValueError as error:
            raise FatalError("HUB-E3150", place=self.located.place((*path, "time")), time=given.time) from error

    def _compared(self) -> Iterator[HubError]:
        if self.test.then is not None:
            yield from self._compare_commands([next(iter(each.items())) for each in self.test.then if each])
        counts = Counter(command.type for command in self.commands)
        for name, expected in (self.test.then_count or {}).items():
            if counts[name] != expected:
                place = self.located.place((*self.path, "then_count", name))
                yield FatalError("HUB-E3182", place=place, command=name, expected=expected, got=counts[name])

    def _compare_commands(self, expected: list[tuple[str, dict[str, Any]]]) -> Iterator[HubError]:
        for at in range(max(len(expected), len(self.commands))):
            path = (*self.path, "then", at)
            wanted = expected[at] if at < len(expected) else None
            got = self.commands[at] if at < len(self.commands) else None
            if wanted is None or got is None or wanted[0] != got.type:
                seen = {"position": at + 1, "expected": wanted[0] if wanted else "—", "got": got.type if got else "—"}
                yield FatalError(
                    "HUB-E3180", place=self.located.key_place((*path, wanted[0]) if wanted else path), **seen
                )
                return
            for name, value in wanted[1].items():
                yield from self._compare_field(got, name, value, (*path, wanted[0], name), at)

    def _compare_field(
        self, command: Command, name: str, expected: Json, path: tuple[str | int, ...], at: int
    ) -> Iterator[HubError]:
        got = command.instance if name == "in" else command.arguments.get(name)
        if got == expected or (promised(got) and str(expected).startswith("${")):
            return
        seen = {
            "position": at + 1,
            "command": command.type,
            "field": name,
            "expected": short(expected),
            "got": short(got),
        }
        yield FatalError("HUB-E3181", place=self.located.place(path), **seen)
