"""Trials of rules: that they find what is wrong, and only that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hub.engine.step import step
from hub.errors import RejectedError
from hub.rules.trial import Trial, check_trials, run_trials
from tests.unit.hub.rules.homes import HEAD, TASK, event, read, rules

DO = """do:
  - project.create: {as: project, in: pm, name: "${event.data.name}"}
  - task.create: {in: pm, project: "${project}", title: 启动, assignee: "${event.data.owner}"}
"""
GIVEN = (
    "{type: crm.opportunity.won, subject: opportunity/crm/O-1, time: 2026-11-20T02:00:00Z,"
    ' data: {name: A, account: B, amount: "1", currency: CNY, owner: U-3}}'
)


def trials(folder: Path, test: str, rule: str = HEAD + DO, other: str = "") -> list[Trial]:
    (folder / "0.test.yaml").write_text(test, "utf-8")
    found, errors = read(rule, *([other] if other else []))
    assert errors == []
    return run_trials(folder, found, {})


def problems(folder: Path, expected: str, given: str = GIVEN) -> list[tuple[str, str]]:
    test = f"tests:\n  - name: t\n    given: [{given}]\n    {expected}\n"
    folder = folder / "rules"
    folder.mkdir()
    (trial,) = trials(folder, test)
    assert trial.passed == (not trial.problems)
    return [(error.code, str(error.place)) for error in trial.problems]


@pytest.mark.parametrize(
    "expected",
    [
        "then: [{project.create: {name: A, in: pm}}, {task.create: {assignee: person/wang.fang}}]",
        'then: [{project.create: {}}, {task.create: {project: "${project}"}}]',
        "then_count: {project.create: 1, task.create: 1, message.send: 0}",
    ],
)
def test_what_is_as_expected_passes(tmp_path: Path, expected: str) -> None:
    assert problems(tmp_path, expected) == []


@pytest.mark.parametrize(
    ("expected", "code", "place"),
    [
        ("then: []", "HUB-E3180", "4:11"),
        ("then: [{project.create: {name: B}}, {task.create: {}}]", "HUB-E3181", "4:36"),
        ("then: [{project.create: {nmae: A}}, {task.create: {}}]", "HUB-E3181", "4:36"),
        ("then: [{task.create: {}}, {project.create: {}}]", "HUB-E3180", "4:13"),
        ("then: [{project.create: {}}, {task.create: {}}, {task.create: {}}]", "HUB-E3180", "4:54"),
        ("then: [{project.create: {}}, {task.create: {project: P-1}}]", "HUB-E3181", "4:58"),
        ("then_count: {task.create: 2}", "HUB-E3182", "4:31"),
    ],
)
def test_what_differs_is_told_with_its_place(tmp_path: Path, expected: str, code: str, place: str) -> None:
    assert problems(tmp_path, expected) == [(code, f"rules/0.test.yaml:{place}")]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (GIVEN.replace("name: A", "nmae: A"), "HUB-E3184"),
        (GIVEN.replace("opportunity/crm/O-1", "nothing"), "HUB-E3184"),
        (GIVEN.replace("2026-11-20T02:00:00Z", "friday"), "HUB-E3150"),
        (GIVEN.replace('amount: "1"', 'amount: "1e3"'), "HUB-E3184"),
    ],
)
def test_an_event_that_could_not_come_is_refused(tmp_path: Path, given: str, code: str) -> None:
    assert [found[0] for found in problems(tmp_path, "then_count: {}", given)] == [code]


def test_the_same_event_twice_asks_once_and_a_later_one_of_the_same_stage_too(tmp_path: Path) -> None:
    second = GIVEN.replace("subject:", 'version: "8", subject:')
    assert problems(tmp_path, "then_count: {project.create: 1}", f"{GIVEN}, {GIVEN}, {second}") == []


def test_a_reopened_deal_that_is_won_again_asks_again(tmp_path: Path) -> None:
    opened = GIVEN.replace("opportunity.won", "opportunity.reopened")
    assert problems(tmp_path, "then_count: {project.create: 2}", f"{GIVEN}, {opened}, {GIVEN}") == []


def test_a_trial_beside_a_rule_tries_that_rule_alone_whatever_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "rules"
    folder.mkdir()
    other = HEAD.replace("won", "other", 1) + "do:\n  - message.send: {in: im, to: person/li.lei, text: a}\n"
    test = f"tests:\n  - name: t\n    given: [{GIVEN}]\n    then_count: {{project.create: 1, message.send: 0}}\n"
    shadow = HEAD + "scope: {mode: shadow}\n" + DO
    assert [trial.passed for trial in trials(folder, test, shadow, other)] == [True]
    (folder / "0.test.yaml").rename(folder / "all.test.yaml")
    found, _ = read(shadow, other)
    assert [error.code for trial in run_trials(folder, found, {}) for error in trial.problems] == ["HUB-E3182"]


def test_a_rule_that_fails_is_told_with_its_own_place(tmp_path: Path) -> None:
    test = f"tests:\n  - name: t\n    given: [{GIVEN}]\n    then: []\n"
    folder = tmp_path / "rules"
    folder.mkdir()
    (trial,) = trials(folder, test, HEAD + DO.replace("event.data.owner", "event.data.boss"))
    assert [(error.code, str(error.place)) for error in trial.problems] == [("HUB-E3120", "rules/0.yaml:7:85")]


@pytest.mark.parametrize(
    ("test", "code"),
    [
        ("tests: [{name: a}]", "HUB-E3007"),
        ("tests: [{name: a, given: [], than: []}]", "HUB-E3005"),
        ("tests: [{name: a, given: [], then: [{task.craete: {}}]}]", "HUB-E3162"),
        ("tests: [{name: a, given: [], then_count: {task.create: -1}}]", "HUB-E3001"),
        ("tests: [", "HUB-E3002"),
    ],
)
def test_a_file_with_mistakes_is_one_failed_trial(tmp_path: Path, test: str, code: str) -> None:
    folder = tmp_path / "rules"
    folder.mkdir()
    assert [error.code for trial in trials(folder, test) for error in trial.problems] == [code]
    assert [error.code for error in check_trials(folder, {})] == [code]


DEAL = "data: {{name: A, account: B, amount: '{}', currency: CNY}}"
LARGE = HEAD + "if: double(event.data.amount) >= 100000.0\n" + DO.replace(', assignee: "${event.data.owner}"', "")
MIXED = LARGE.replace("when: crm.opportunity.won", "when: [crm.opportunity.won, crm.opportunity.changed]")
"""One that waits for the stage and for changes in it."""


def deal(version: int, amount: int, type_: str = "won") -> str:
    told = DEAL.format(amount)
    head = f"type: crm.opportunity.{type_}, subject: opportunity/crm/W1, version: '{version}'"
    return f"{{{head}, time: 2026-11-20T02:00:00Z, {told}}}"


@pytest.mark.parametrize(
    ("rule", "given", "projects"),
    [
        # Corrected above the threshold: the condition holds for the first time.
        (LARGE, [deal(1, 88000), deal(2, 880000)], 1),
        (LARGE, [deal(1, 88000), deal(2, 880000), deal(3, 990000)], 1),
        (LARGE, [deal(1, 880000), deal(2, 88000), deal(3, 880000)], 1),
        (MIXED, [deal(1, 88000), deal(2, 880000, "changed")], 1),
        (MIXED, [deal(1, 88000), deal(2, 880000, "changed"), deal(3, 890000, "changed"), deal(4, 900000)], 1),
        (MIXED, [deal(1, 880000), deal(2, 890000, "changed")], 1),
        (LARGE, [deal(1, 88000), deal(2, 1, "lost"), deal(3, 880000)], 1),
        (LARGE, [deal(1, 880000), deal(2, 1, "lost"), deal(3, 880000)], 2),
        # An older version that comes late is not what is true now.
        (LARGE, [deal(2, 88000), deal(1, 880000)], 0),
        (LARGE, [deal(1, 88000), deal(3, 1, "lost"), deal(2, 880000)], 0),
    ],
)
def test_a_stage_is_used_up_by_asking(tmp_path: Path, rule: str, given: list[str], projects: int) -> None:
    folder = tmp_path / "rules"
    folder.mkdir()
    test = f"tests:\n  - name: t\n    given: [{', '.join(given)}]\n    then_count: {{project.create: {projects}}}\n"
    (trial,) = trials(folder, test, rule)
    assert trial.problems == ()


UNTIL = "if: has(event.data.until)\n" + TASK.replace(
    'title: "${event.data.name}"', 'title: a, due: "${workdays(event.data.until, 5)}"'
)


def until(name: str, day: str) -> str:
    data = f"{{name: A, account: B, amount: '1', currency: CNY, until: '{day}'}}"
    given = f"{{type: crm.opportunity.won, subject: opportunity/crm/{name}, time: 2026-11-20T02:00:00Z, data: {data}}}"
    return f"  - {{name: {name}, given: [{given}], then: [{{task.create: {{}}}}]}}\n"


@pytest.mark.parametrize("day", ["9999-12-31T23:59:59+08:00", "0001-01-01T00:00:00Z"])
@pytest.mark.parametrize("call", ["workdays(event.data.until, 5)", "workdays(event.data.until, 1 + 4)"])
def test_a_day_past_the_calendar_fails_its_own_trial_only(tmp_path: Path, day: str, call: str) -> None:
    rule = (HEAD + UNTIL).replace("workdays(event.data.until, 5)", call)
    (tmp_path / "won.yaml").write_text(rule, "utf-8")
    (tmp_path / "won.test.yaml").write_text(
        "tests:\n" + until("O-1", day) + until("O-2", "2026-12-31T00:00:00Z"), "utf-8"
    )
    first, second = run_trials(tmp_path, rules(rule), {})
    assert second.passed
    assert {problem.code for problem in first.problems} <= {"HUB-E3154", "HUB-E3150"}
    assert all(problem.place and problem.place.line for problem in first.problems)
    assert not first.passed or day.startswith("0001")


@pytest.mark.parametrize("call", ["role(event.data.name)", "role(event.data.name + '')"])
def test_what_nobody_foresaw_in_a_function_is_an_error_of_the_event(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("hub.people.PeopleDirectory.role", broken)
    found = rules(HEAD + TASK.replace("event.data.name", call))
    with pytest.raises(RejectedError) as caught:
        step(None, event(), found)
    assert (caught.value.code, str(caught.value.place)) == ("HUB-E3128", "rules/0.yaml:6:37")
    assert "ZeroDivisionError: oh" in caught.value.message("en")


def test_a_defect_ends_its_own_trial_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "won.test.yaml").write_text("tests:\n" + until("O-1", "x") + until("O-2", "y"), "utf-8")
    real = step

    def broken(case: object, event_: Any, rules_: Any) -> Any:
        if event_.subject.endswith("O-1"):
            raise ZeroDivisionError("oh")
        return real(case, event_, rules_)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr("hub.rules.trial.step", broken)
    first, second = run_trials(tmp_path, rules(HEAD + TASK), {})
    assert [problem.code for problem in first.problems] == ["HUB-E3187"]
    assert second.passed


@pytest.mark.parametrize(
    ("time", "due", "code"),
    [
        ("2026-11-31T00:00:00Z", "2026-11-30", "HUB-E3150"),
        ("2026-11-20", "2026-11-30", "HUB-E3150"),
        ("2026-11-20T00:00:00Z", "2026-11-31", "HUB-E3001"),
    ],
)
def test_impossible_dates_are_told_without_a_run(tmp_path: Path, time: str, due: str, code: str) -> None:
    given = f"{{type: crm.opportunity.won, subject: opportunity/crm/O-1, data: {{}}, time: {time}}}"
    (tmp_path / "won.test.yaml").write_text(
        f"tests: [{{name: a, given: [{given}], then: [{{task.create: {{due: {due}}}}}]}}]", "utf-8"
    )
    assert [error.code for error in check_trials(tmp_path, {})] == [code]
