"""Tests of rules: `<name>.test.yaml` next to a rule lists given events and the commands that must follow.

    tests:
      - name: …
        given: [{type, subject, time, data, version, case, actor}]    data as a connector sends it: people by their accounts
        then: [{task.create: {title: …}}]      every command in order, with the fields to compare; `in` is the instance
        then_count: {task.create: 3}           counts by name
A file next to a rule tests that rule alone; any other file tests all rules together. Modes are ignored: all rules run as live.
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

from hub.config.expecting import Expected, expected_day
from hub.config.strict_json import Json
from hub.config.validation import Strict, check, dotted, near, short, wrong
from hub.config.yaml_places import Located, read_yaml
from hub.engine.case import Case
from hub.engine.step import EmitCommand, EmitEvent, step
from hub.errors import FatalError, HubError, Place, RejectedError
from hub.people import PeopleDirectory
from hub.rules.files import rule_of, trial_files
from hub.rules.rule_set import RuleSet, make_rule_set
from schemas.envelope import CONNECTOR_SOURCE, Command, Event, derived_id, format_time, parse_time, promised
from schemas.registry import COMMANDS, event_spec

MAX_EVENTS = 1000
"""The most events of one trial, including those that the hub derives."""


class Given(Strict):
    """An event in short form."""

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
    """The result of one trial; `problems` is empty when all is as expected."""

    file: str
    name: str
    place: Place
    commands: tuple[Command, ...] = ()
    problems: tuple[HubError, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there are no problems."""
        return not self.problems


def given_event(given: Given, people: PeopleDirectory, at: int = 0) -> Event:
    """The complete event of one in short form; `at` distinguishes events of the same subject without a version.

    Raises ValidationError for data that its type does not allow, ValueError for an invalid time.
    """
    spec = event_spec(given.type)
    instance = given.subject.partition("/")[2].partition("/")[0]
    case = given.case or given.subject
    data = people.with_persons(spec.model, given.data, instance)
    spec.model.model_validate(data)
    time = format_time(parse_time(given.time))
    return Event(
        id=given.id or derived_id("trial", given.type, given.subject, given.version or f"#{at}"),
        source=f"{CONNECTOR_SOURCE}{instance}", type=given.type, subject=given.subject, time=time, recordedtime=time,
        dataschema=spec.dataschema, partitionkey=case, correlationid=case, subjectversion=given.version,
        actor=people.person_ref(given.actor, instance) if given.actor else None, data=data,
    )  # fmt: skip


def run_trials(folder: Path, rules: RuleSet, environ: Mapping[str, str]) -> list[Trial]:
    """Run every trial of a folder of rules; a file that cannot be read is one failed trial."""
    return [trial for file in trial_files(folder) for trial in _run_file(file, rules, environ)]


def check_trials(folder: Path, environ: Mapping[str, str]) -> list[HubError]:
    """The mistakes in the format of the trials, without running them."""
    read = [_read(file, environ) for file in trial_files(folder)]
    return [
        error
        for located, tests, errors in read
        for error in (*errors, *(_impossible_times(tests, located) if tests is not None else ()))
    ]


def _run_file(file: Path, rules: RuleSet, environ: Mapping[str, str]) -> Iterator[Trial]:
    located, tests, errors = _read(file, environ)
    if tests is None or errors:
        yield Trial(located.file, file.name, located.place(), problems=tuple(errors))
        return
    tried = _rules_for(file, rules)
    for at, test in enumerate(tests.tests):
        yield _Run(located, ("tests", at), test, tried).trial()


def _read(file: Path, environ: Mapping[str, str]) -> tuple[Located, _File | None, list[HubError]]:
    located = read_yaml(file, f"{file.parent.name}/{file.name}", environ)
    if located.errors:
        return located, None, list(located.errors)
    tests, errors = check(_File, located, (), located.file)
    return located, tests, [*errors, *(_unknown_commands(tests, located) if tests else ())]


def _impossible_times(tests: _File, located: Located) -> Iterator[FatalError]:
    for at, test in enumerate(tests.tests):
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
    """The expected form of a text that looks like a date but is none; None for a valid date, and for every other value."""
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        return None
    try:
        date.fromisoformat(value)
    except ValueError:
        return expected_day(value)
    return None


def _unknown_commands(tests: _File, located: Located) -> Iterator[FatalError]:
    for at, test in enumerate(tests.tests):
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
    """One running trial. Events that the hub derives are folded again, as they are from the log."""

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
        except Exception as error:  # a defect of the hub in one trial must not hide the results of the others
            reason = f"{type(error).__name__}: {error}"
            problems.append(FatalError("HUB-E3187", place=self.located.place(self.path), reason=reason))
        place = self.located.place((*self.path, "name"))
        return Trial(self.located.file, self.test.name, place, tuple(self.commands), tuple(problems))

    def _fold(self, event: Event) -> list[Event]:
        done = step(self.cases.get(event.case), event, self.rules)
        self.cases[event.case] = done.case
        self.commands += [output.command for output in done.outputs if isinstance(output, EmitCommand)]
        return [output.event for output in done.outputs if isinstance(output, EmitEvent)]

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
                details = {
                    "position": at + 1,
                    "expected": wanted[0] if wanted else "—",
                    "got": got.type if got else "—",
                }
                yield FatalError(
                    "HUB-E3180", place=self.located.key_place((*path, wanted[0]) if wanted else path), **details
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
        details = {
            "position": at + 1,
            "command": command.type,
            "field": name,
            "expected": short(expected),
            "got": short(got),
        }
        yield FatalError("HUB-E3181", place=self.located.place(path), **details)
