"""Who holds a role, whose account that is, and what is wrong in people.yaml."""

from __future__ import annotations

from collections import Counter

import pytest

from hub.config.yaml_places import parse_yaml
from hub.errors import Place, RejectedError
from hub.people import PeopleDirectory, read_people, unknown_instances

TEXT = """
departments:
  sales: {name: {zh: 销售部, en: Sales}, liaison: li.lei}
people:
  li.lei: {name: 李雷, department: sales, roles: [lead, clerk], accounts: {crm: U-7, pm: "7"}}
  han.meimei: {name: 韩梅梅, roles: [clerk], accounts: {pm: 11}}
  lin.tao: {name: 林涛, roles: [clerk]}
"""


def people(text: str = TEXT) -> PeopleDirectory:
    found, errors = read_people(parse_yaml(text, "people.yaml", {}))
    assert errors == []
    return found


def mistakes(text: str) -> list[tuple[str, str]]:
    located = parse_yaml(text, "people.yaml", {})
    return [(error.code, str(error.place)) for error in (*located.errors, *read_people(located)[1])]


@pytest.mark.parametrize(
    "account", ["11", "1285704473650888702", "+8613800000000", "007", "2.5", "0x1F", "9223372036854775807"]
)
def test_an_account_is_what_is_written(account: str) -> None:
    assert people(f"people:\n  a: {{name: 甲, accounts: {{im: {account}}}}}").account("person/a", "im") == account


@pytest.mark.parametrize("account", ["9223372036854775808", "12E5", "1e400", "12.50", "1.0000000000000000001"])
def test_an_account_that_would_become_another_is_a_mistake(account: str) -> None:
    text = f"people:\n  a: {{name: 甲, accounts: {{im: {account}}}}}\n  b: {{name: 乙, accounts: {{im: 0}}}}"
    assert mistakes(text) == [("HUB-E3012", "people.yaml:2:31")]
    assert mistakes(text.replace(account, f"'{account}'")) == []


def test_a_role_has_one_holder_for_a_case_and_is_shared_over_cases() -> None:
    everyone = people()
    chosen = [everyone.role("clerk", f"opportunity/crm/O-{n}") for n in range(3000)]
    assert chosen == [everyone.role("clerk", f"opportunity/crm/O-{n}") for n in range(3000)]
    assert all(800 < count < 1200 for count in Counter(chosen).values())
    assert everyone.role("lead", "opportunity/crm/O-1") == "person/li.lei"


def test_a_holder_who_leaves_moves_only_their_own_cases() -> None:
    before, after = people(), people(TEXT.replace("[lead, clerk]", "[lead]"))
    cases = [f"opportunity/crm/O-{n}" for n in range(300)]
    moved = [case for case in cases if before.role("clerk", case) != after.role("clerk", case)]
    assert moved == [case for case in cases if before.role("clerk", case) == "person/li.lei"]


def test_a_role_that_nobody_holds_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(RejectedError) as caught:
        people().role("clrk", "c/1/1")
    assert (caught.value.code, caught.value.seen["near"]) == ("HUB-E3140", "clerk")


def test_accounts_are_found_both_ways() -> None:
    everyone = people()
    assert everyone.account("person/han.meimei", "pm") == "11"
    assert everyone.person_of("pm", "11") == "person/han.meimei"
    assert everyone.person_of("pm", "12") is None
    assert everyone.liaison("sales") == "person/li.lei"
    assert everyone.person("person/li.lei")["name"] == "李雷"


def test_a_missing_account_says_where_to_add_it() -> None:
    with pytest.raises(RejectedError) as caught:
        people().account("person/lin.tao", "pm")
    assert (caught.value.code, caught.value.place) == ("HUB-E3143", Place("people.yaml", 7, 3))
    assert "accounts: {pm: …}" in caught.value.fix("en")
    with pytest.raises(RejectedError, match="HUB-E3142"):
        people().account("person/nobody", "pm")
    with pytest.raises(RejectedError, match="HUB-E3142"):
        people().account("account/crm/U-9", "pm")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("people:\n  a: {nmae: A}", [("HUB-E3007", "people.yaml:2:6"), ("HUB-E3005", "people.yaml:2:7")]),
        ("people:\n  a: {name: A, department: x}", [("HUB-E3146", "people.yaml:2:28")]),
        ("people:\n  a: {name: A, roles: lead}", [("HUB-E3001", "people.yaml:2:23")]),
        ("people:\n  a b: {name: A}", [("HUB-E3001", "people.yaml:2:8")]),
        ("persons: {}", [("HUB-E3005", "people.yaml:1:1")]),
        ("departments: {d: {name: {zh: 部, en: D}, liaison: x}}", [("HUB-E3142", "people.yaml:1:50")]),
        ("people:\n  a: {name: A, accounts: {pm: 7}}\n  b: {name: B, accounts: {pm: '7'}}",
         [("HUB-E3145", "people.yaml:3:32")]),
        ("- a", [("HUB-E3001", "people.yaml:1:1")]),
    ],
)  # fmt: skip
def test_mistakes_have_their_place(text: str, found: list[tuple[str, str]]) -> None:
    assert mistakes(text) == found


def test_accounts_at_unknown_instances_are_warned_of() -> None:
    located = parse_yaml(TEXT, "people.yaml", {})
    found = unknown_instances(read_people(located)[0], located, {"crn", "pm"})
    assert [(error.code, error.seen["near"], str(error.place)) for error in found] == [
        ("HUB-W3144", "crn", "people.yaml:5:74")
    ]


def test_no_file_means_no_people() -> None:
    assert people("").people == {}
