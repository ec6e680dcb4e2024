"""What may stand in hub.yaml, and how the things that it names are found."""

from __future__ import annotations

from typing import Any

import pytest

from connectors.redmine.client import RedmineClient, Row
from connectors.redmine.people import RedmineUsers
from connectors.redmine.settings import Names, RedmineSettings
from hub.errors import FatalError, RejectedError
from hub.kit import registry
from hub.kit.connector import Instance, RateLimits

GIVEN = {"url": "https://redmine.example.com", "key": "secret-key"}
FIELD = {
    "id": 4,
    "name": "Baton",
    "customized_type": "issue",
    "field_format": "string",
    "is_filter": True,
    "multiple": False,
}


class Listing(RedmineClient):
    """A Redmine of lists, which counts how often it is asked."""

    def __init__(self, **lists: list[Row]) -> None:
        super().__init__("http://127.0.0.1:1", "k", name="pm", limits=RateLimits())
        self.lists, self.asked = lists, 0

    def listed(self, path: str) -> list[Row]:
        self.asked += 1
        return self.lists[path]

    def user(self, id_: int) -> Row | None:
        self.asked += 1
        return next((row for row in self.lists["users"] if row["id"] == id_), None)

    def user_by_login(self, login: str) -> Row | None:
        self.asked += 1
        return next((row for row in self.lists["users"] if row["login"] == login), None)


def names(client: Listing, **settings: Any) -> Names:
    given = GIVEN | settings
    return Names(client, RedmineSettings.model_validate(given), Instance("pm", "redmine", given))


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"url": "redmine.example.com"}, "HUB-E4012"),
        ({"url": "https://me:secret@redmine.example.com"}, "HUB-E4012"),
        ({"url": "https://redmine.example.com/?key=1"}, "HUB-E4012"),
        ({"key": ""}, "HUB-E4012"),
        ({"project": "123"}, "HUB-E4012"),
        ({"project": "Inbox"}, "HUB-E4012"),
        ({"accounts": "mail"}, "HUB-E4012"),
        ({"since": "2026-01-01T00:00:00"}, "HUB-E4012"),
        ({"overlap": 0}, "HUB-E4012"),
        ({"limits": {"at_once": 0}}, "HUB-E4012"),
        ({"limits": {"per_sec": 1}}, "HUB-E4010"),
        ({"api_key": "x"}, "HUB-E4010"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_called(wrong: dict[str, Any], code: str) -> None:
    with pytest.raises(FatalError, match=code) as raised:
        registry.connect(Instance("pm", "redmine", GIVEN | wrong))
    assert "secret-key" not in str(raised.value)


def test_a_field_is_asked_for_once() -> None:
    client = Listing(custom_fields=[{**FIELD, "id": 3, "customized_type": "project"}, FIELD])
    found = names(client)
    assert (found.field, found.field, client.asked) == (4, 4, 1)


def test_a_field_named_by_its_number_needs_no_administrator() -> None:
    client = Listing()
    assert (names(client, mark_field=9).field, client.asked) == (9, 0)


@pytest.mark.parametrize(
    "wrong", [{"is_filter": False}, {"name": "baton"}, {"field_format": "text"}, {"multiple": True}]
)
def test_a_field_that_cannot_be_searched_by_is_none(wrong: Row) -> None:
    with pytest.raises(FatalError, match="HUB-E4302"):
        _ = names(Listing(custom_fields=[FIELD | wrong])).field


def test_the_first_role_that_exists_is_taken_and_a_missing_one_names_those_there_are() -> None:
    client = Listing(roles=[{"id": 3, "name": "管理人员"}, {"id": 4, "name": "开发人员"}])
    found = names(client)
    assert (found.role, found.role, client.asked) == (4, 4, 1)
    with pytest.raises(FatalError, match=r"role of pm.*管理人员 \| 开发人员.*Boss"):
        _ = names(client, role=["Boss"]).role


def test_no_tracker_is_asked_for_unless_one_is_named() -> None:
    client = Listing(trackers=[{"id": 2, "name": "功能"}])
    assert (names(client).tracker, client.asked) == (None, 0)
    assert names(client, tracker="功能").tracker == 2


def test_people_by_login_are_asked_for_once_each_way() -> None:
    client = Listing(users=[{"id": 5, "login": "li.lei"}, {"id": 6, "login": ""}])
    people = RedmineUsers(client, "pm", "login")
    assert [people.user("li.lei"), people.user("li.lei"), client.asked] == [5, 5, 1]
    assert [people.account(5), people.account(5), client.asked] == ["li.lei", "li.lei", 2]
    assert [people.account(6), people.account(99)] == ["6", "99"]
    with pytest.raises(RejectedError, match=r"HUB-E4304.*nobody"):
        people.user("nobody")


def test_people_by_number_need_no_administrator() -> None:
    client = Listing()
    people = RedmineUsers(client, "pm", "id")
    assert (people.user("5"), people.account(5), client.asked) == (5, "5", 0)
    with pytest.raises(RejectedError, match=r"HUB-E4304.*li\.lei"):
        people.user("li.lei")
