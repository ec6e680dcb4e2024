"""Reading rules: what is understood, and where each mistake is pointed at."""

from __future__ import annotations

import pytest

from tests.unit.hub.rules.homes import HEAD, TASK, mistakes, read, rules


def test_a_rule_is_read_whole() -> None:
    text = HEAD + "scope: {departments: [sales], mode: shadow}\nif: double(event.data.amount) > 1.0\n" + TASK
    (rule,) = rules(text).rules
    assert (rule.name, rule.owner, rule.departments, rule.mode) == ("won", "sales", ("sales",), "shadow")
    assert rule.title == {"zh-CN": "赢", "en": "Won"}
    assert rule.when == ("crm.opportunity.won",)
    assert str(rule.place) == "rules/0.yaml:1:7"


def test_the_digest_is_blind_to_layout_and_sees_every_word() -> None:
    plain = rules(HEAD + TASK).digests()["won"]
    assert (
        rules("# a note\n" + HEAD + "\n\n" + TASK.replace("{in: pm, title", "{in:   pm, title")).digests()["won"]
        == plain
    )
    assert rules(HEAD + TASK.replace("pm", "crm")).digests()["won"] != plain


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (HEAD + TASK.replace("task.create", "task.craete"), [("HUB-E3162", 6, 5)]),
        (HEAD + TASK.replace("title", "titel"), [("HUB-E3005", 6, 27), ("HUB-E3007", 6, 5)]),
        (HEAD + TASK.replace("in: pm, ", ""), [("HUB-E3007", 6, 5)]),
        (HEAD + TASK.replace("in: pm", "in: pn"), [("HUB-E3165", 6, 23)]),
        (HEAD + "do: []\n", [("HUB-E3001", 5, 5)]),
        (HEAD + "do:\n  - task.create: {in: pm, title: 3}\n", [("HUB-E3001", 6, 34)]),
        (HEAD + "do:\n  - task.create: {in: pm, title: a, due: soon}\n", [("HUB-E3001", 6, 42)]),
        (HEAD + "do:\n  - {task.create: {in: pm, title: a}, message.send: {in: im, to: x, text: y}}\n", [("HUB-E3001", 6, 5)]),
        (HEAD.replace("won\n", "wno\n", 1) + TASK.replace("event", "evnet"), [("HUB-E3114", 6, 37)]),
        (HEAD.replace("opportunity.won", "oportunity.won") + TASK, [("HUB-E3161", 4, 7)]),
        (HEAD.replace("when: crm.opportunity.won", "when: [crm.opportunity.won, nope.x.y]") + TASK, [("HUB-E3161", 4, 29)]),
        (HEAD + "wen: x\n" + TASK, [("HUB-E3005", 5, 1)]),
        (HEAD + "scope: {mode: on}\n" + TASK, [("HUB-E3001", 5, 15)]),
        (HEAD + "scope: {departments: [sails]}\n" + TASK, [("HUB-E3146", 5, 23)]),
        (HEAD + "if: event.data.amount >\n" + TASK, [("HUB-E3110", 5, 24)]),
        (HEAD + "if: size(event.data)\n" + TASK, [("HUB-E3112", 5, 5)]),
        (HEAD + "if: event.dta.amount == '1'\n" + TASK, [("HUB-E3120", 5, 11)]),
        (HEAD + "if: case.entites == {}\n" + TASK, [("HUB-E3120", 5, 10)]),
        (HEAD + "for each: {line: event.data.lines}\n" + TASK, [("HUB-E3001", 5, 18)]),
        (HEAD + "for each: {a: '${[1]}', b: '${[2]}'}\n" + TASK, [("HUB-E3001", 5, 11)]),
        (HEAD + "for each: {event: '${[1]}'}\n" + TASK, [("HUB-E3164", 5, 20)]),
        (HEAD.replace("rule: won", "rule: Won Deal") + TASK, [("HUB-E3001", 1, 7)]),
        (HEAD.replace("owner: sales\n", "") + TASK, [("HUB-E3007", 1, 1)]),
        ("- a\n", [("HUB-E3001", 1, 1)]),
        (HEAD + TASK + HEAD, [("HUB-E3003", line, 1) for line in (7, 8, 9, 10)]),
    ],
)  # fmt: skip
def test_a_mistake_has_its_place(text: str, found: list[tuple[str, int, int]]) -> None:
    assert mistakes(text) == found


@pytest.mark.parametrize("key", ["wait", "approve", "unless", "unless overdue within"])
def test_what_is_not_supported_yet_is_refused_and_not_ignored(key: str) -> None:
    assert mistakes(HEAD + TASK + f"{key}: 2d\n")[0][0] == "HUB-E3160"


PROJECT = "do:\n  - project.create: {as: project, in: pm, name: a}\n"


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ('task.create: {in: pm, title: a, project: "${project}"}', None),
        ('task.create: {in: pm, title: a, project: "${ project }"}', None),
        ('task.create: {in: pm, title: "of ${project}"}', "HUB-E3163"),
        ('task.create: {in: pm, title: "${project.id}"}', "HUB-E3163"),
        ('task.create: {in: pm, title: "${string(project)}"}', "HUB-E3163"),
        ('task.create: {in: pm, title: a, project: "${later}"}', "HUB-E3114"),
        ('task.create: {as: project, in: pm, title: a}', "HUB-E3001"),
        ('task.create: {as: event, in: pm, title: a}', "HUB-E3164"),
        ('task.create: {as: My-Task, in: pm, title: a}', "HUB-E3164"),
    ],
)  # fmt: skip
def test_a_promise_is_a_whole_value_of_an_earlier_command(entry: str, code: str | None) -> None:
    last = "\n  - task.create: {as: later, in: pm, title: b}\n" if "later" in entry else "\n"
    assert [found[0] for found in mistakes(HEAD + PROJECT + f"  - {entry}" + last)] == ([code] if code else [])


def test_two_files_may_not_hold_the_same_rule() -> None:
    errors = read(HEAD + TASK, HEAD + TASK)[1]
    assert [(error.code, str(error.place)) for error in errors] == [("HUB-E3166", "rules/1.yaml:1:7")]


def test_every_mistake_of_a_file_is_told_at_once_and_names_its_rule() -> None:
    text = (
        HEAD.replace("won\n", "won\n", 1) + "if: nope\ndo:\n  - task.create: {in: xx, titel: a}\n  - mesage.send: {}\n"
    )
    errors = read(text)[1]
    assert [error.code for error in errors] == ["HUB-E3114", "HUB-E3165", "HUB-E3005", "HUB-E3007", "HUB-E3162"]
    assert {error.seen["rule"] for error in errors} == {"won"}
