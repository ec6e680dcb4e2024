"""Commands against a Redmine in memory: what is asked, in which order, and what is concluded from the answers."""

from __future__ import annotations

from typing import Any

import pytest

from connectors.redmine.client import RedmineClient, Row
from connectors.redmine.people import RedmineUsers
from connectors.redmine.settings import Names, RedmineSettings
from connectors.redmine.target import RedmineTarget
from hub.errors import FatalError, RejectedError, UncertainError
from hub.kit.connector import Idempotency, Instance, RateLimits
from tests.unit.connectors.redmine.test_mapping import command, entry, issue

GIVEN = {"url": "http://127.0.0.1:1", "key": "k", "mark_field": 3, "accounts": "id", "role": ["Developer"]}


class Memory(RedmineClient):
    """Remembers its changing requests as `wrote`; refuses an issue whose assignee is no member or whose project is missing."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", "k", name="pm", limits=RateLimits())
        self.wrote: list[str] = []
        self.projects = {"12"}
        self.members: set[tuple[str, int]] = set()
        self.issues: dict[int, Row] = {7: issue(allowed_statuses=[])}
        self.found: list[Row] = []
        self.key_is_right = True
        self.field_is_on = True

    def listed(self, path: str) -> list[Row]:
        return [{"id": 4, "name": "Developer"}]

    def me(self) -> Row:
        if not self.key_is_right:
            raise FatalError("HUB-E4003", instance="pm", login="API key")
        return {"login": "admin"}

    def project(self, ref: str) -> Row | None:
        return {"id": 30, "identifier": ref} if ref in self.projects else None

    def issue(self, id_: int) -> Row | None:
        return self.issues.get(id_)

    def with_value(self, field: int, value: str) -> list[Row]:
        return self.found

    def create_project(self, values: Row) -> Row:
        self.wrote.append(f"project {values['identifier']}")
        if values["identifier"] in self.projects:
            raise invalid("Identifier has already been taken")
        self.projects.add(values["identifier"])
        return {"id": 30, "identifier": values["identifier"]}

    def create_issue(self, values: Row) -> Row:
        self.wrote.append(f"issue {values['subject']}")
        self._check(values["project_id"], values)
        return {"id": 41, "custom_fields": values["custom_fields"] if self.field_is_on else []}

    def update_issue(self, id_: int, values: Row) -> None:
        self.wrote.append(f"change {sorted(values)}")
        self._check("2", values)

    def add_member(self, project: str, user: int, role: int) -> None:
        self.wrote.append(f"member {user} {role}")
        if project not in self.projects | {"2"}:
            raise RejectedError("HUB-E4006", instance="pm", reason="HTTP 404", status=404)
        self.members.add((project, user))

    def _check(self, project: str, values: Row) -> None:
        if project not in self.projects | {"2"}:
            raise invalid("Project cannot be blank")
        if "assigned_to_id" in values and (project, values["assigned_to_id"]) not in self.members:
            raise invalid("Assignee is invalid")


def invalid(words: str) -> RejectedError:
    return RejectedError("HUB-E4006", instance="pm", reason=words, status=422)


@pytest.fixture
def redmine() -> Memory:
    return Memory()


@pytest.fixture
def target(redmine: Memory) -> RedmineTarget:
    settings = RedmineSettings.model_validate(GIVEN)
    names = Names(redmine, settings, Instance("pm", "redmine", GIVEN))
    return RedmineTarget(redmine, "pm", settings, names, RedmineUsers(redmine, "pm", "id"))


def test_every_command_can_be_looked_up(target: RedmineTarget) -> None:
    assert {target.idempotency(type_) for type_ in target.command_types} == {Idempotency.LOOKUP}


def test_one_request_does_the_work(redmine: Memory, target: RedmineTarget) -> None:
    redmine.members.add(("12", 5))
    assert target.send(command("task.create", title="a", project="12", assignee="5")).id == "41"
    assert redmine.wrote == ["issue a"]


def test_what_it_lacks_is_made_and_then_it_is_sent_once_more(redmine: Memory, target: RedmineTarget) -> None:
    target.send(command("task.create", title="a", assignee="5"))
    assert redmine.wrote == ["issue a", "project baton", "member 5 4", "issue a"]


def test_a_second_refusal_is_final(redmine: Memory, target: RedmineTarget) -> None:
    with pytest.raises(RejectedError, match="Project cannot be blank"):
        target.send(command("task.create", title="a", project="99", assignee="5"))
    assert redmine.wrote == ["issue a", "member 5 4", "issue a"]


def test_a_refusal_that_nothing_can_help_is_final_at_once(redmine: Memory, target: RedmineTarget) -> None:
    with pytest.raises(RejectedError, match="Project cannot be blank"):
        target.send(command("task.create", title="a", project="99"))
    assert redmine.wrote == ["issue a"]


def test_doubt_is_passed_on_and_nothing_is_sent_again(
    redmine: Memory, target: RedmineTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(values: Row) -> Row:
        redmine.wrote.append("lost")
        raise UncertainError("HUB-E4002", instance="pm", reason="reset")

    monkeypatch.setattr(redmine, "create_issue", lost)
    with pytest.raises(UncertainError):
        target.send(command("task.create", title="a", assignee="5"))
    assert redmine.wrote == ["lost"]


def test_a_project_whose_identifier_is_taken_was_made_before(redmine: Memory, target: RedmineTarget) -> None:
    asked = command("project.create", name="a")
    assert target.find(asked) is None
    assert target.send(asked) == target.send(asked) == target.find(asked)


def test_absence_is_believed_only_with_a_right_key(redmine: Memory, target: RedmineTarget) -> None:
    asked = command("task.create", title="a")
    assert target.find(asked) is None
    redmine.key_is_right = False
    with pytest.raises(FatalError, match="HUB-E4003"):
        target.find(asked)


def test_issues_of_another_value_mean_that_the_filter_was_passed_over(redmine: Memory, target: RedmineTarget) -> None:
    asked = command("task.create", title="a")
    redmine.found = [issue(mark="another")]
    with pytest.raises(FatalError, match="HUB-E4302"):
        target.find(asked)
    redmine.found = [issue(mark="another"), issue(mark=asked.id) | {"id": 9}, issue(mark=asked.id) | {"id": 10}]
    found = target.find(asked)
    assert found is not None
    assert found.id == "9"


def test_after_a_task_that_could_not_be_marked_the_next_is_refused(redmine: Memory, target: RedmineTarget) -> None:
    redmine.field_is_on = False
    assert target.send(command("task.create", title="a", project="12")).id == "41"
    with pytest.raises(RejectedError, match="HUB-E4303"):
        target.send(command("task.create", title="b", project="12"))
    assert redmine.wrote == ["issue a"]


STATUSES = [
    {"id": 6, "name": "Rejected", "is_closed": True},
    {"id": 1, "name": "New", "is_closed": False},
    {"id": 5, "name": "Closed", "is_closed": True},
]


@pytest.mark.parametrize(
    ("is_closed", "arguments", "changed"),
    [
        (False, {"done": True}, {"status_id": 5}),
        (True, {"done": True}, {}),
        (True, {"done": False}, {"status_id": 1}),
        (False, {"done": None, "title": "新", "due": None}, {"subject": "新"}),
        (False, {"due": "2026-03-01"}, {"due_date": "2026-03-01"}),
        (False, {"due": "2026-01-01"}, {"due_date": "2026-01-01", "start_date": None}),
    ],
)
def test_only_what_is_named_is_changed(
    redmine: Memory,
    target: RedmineTarget,
    monkeypatch: pytest.MonkeyPatch,
    is_closed: bool,
    arguments: dict[str, Any],
    changed: Row,
) -> None:
    sent: list[Row] = []
    redmine.issues[7] = issue(allowed_statuses=STATUSES, start_date="2026-02-01") | {
        "status": {"id": 1, "name": "?", "is_closed": is_closed}
    }
    monkeypatch.setattr(redmine, "update_issue", lambda id_, values: sent.append(values))
    asked = command("task.update", task="7", **arguments)
    target.send(asked)
    assert sent == [{**changed, "notes": f"baton:{asked.id}"}]


def test_a_status_that_no_workflow_allows_is_refused_before_anything_is_changed(
    redmine: Memory, target: RedmineTarget
) -> None:
    redmine.issues[7] = issue(allowed_statuses=STATUSES[:2]) | {"status": {"id": 1, "name": "New", "is_closed": False}}
    with pytest.raises(RejectedError, match=r"HUB-E4305.*#7 \(New\)"):
        target.send(command("task.update", task="7", title="b", done=True))
    assert redmine.wrote == []


def test_a_change_is_found_by_its_note(redmine: Memory, target: RedmineTarget) -> None:
    asked = command("task.update", task="7", done=True)
    assert target.find(asked) is None
    redmine.issues[7] = issue(entry(4, notes=f"baton:{asked.id}"))
    found = target.find(asked)
    assert found is not None
    assert found.id == "7"


@pytest.mark.parametrize("task", ["8", "T-7", ""])
def test_a_task_that_is_not_there_is_refused(target: RedmineTarget, task: str) -> None:
    with pytest.raises(RejectedError, match="HUB-E4306"):
        target.send(command("task.update", task=task, done=True))
