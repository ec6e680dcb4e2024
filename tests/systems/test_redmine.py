"""The Redmine connector against a real Redmine."""

from __future__ import annotations

import contextlib
import http.server
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from connectors.redmine import client, source
from hub.errors import FatalError, RejectedError, RetryableError, UncertainError
from hub.kit import registry
from hub.kit.connector import CommandSink, Connector, Effect, Fact, Instance, Page, PollingSource, RateLimits
from schemas.envelope import Command
from tests.systems.redmine_server import RedmineServer

pytestmark = pytest.mark.systems
DEADLINE = 30.0


def connected(redmine: RedmineServer, **settings: Any) -> Connector:
    given = {"url": redmine.url, "key": redmine.key, "tracker": "Feature"} | settings
    return registry.connect(Instance("pm", "redmine", given))


def command(type_: str, id_: str | None = None, **arguments: Any) -> Command:
    return Command(
        id=id_ or str(uuid.uuid4()),
        type=type_,
        instance="pm",
        case="opportunity/crm/O-1",
        time="2026-01-05T09:00:00.000000Z",
        causationid="event-1",
        subject="opportunity/crm/O-1",
        rule="won-deal-to-delivery",
        digest="d1",
        title={"zh": "赢单自动立项", "en": "A won deal becomes a delivery project"},
        arguments=arguments,
        position=0,
    )


def polls(connector: Connector) -> PollingSource:
    assert connector.polls is not None
    return connector.polls


def sends(connector: Connector) -> CommandSink:
    assert connector.sends is not None
    return connector.sends


def read(connector: Connector, cursor: str | None) -> tuple[list[Fact], str]:
    """All that is new, page by page."""
    facts: list[Fact] = []
    while True:
        page: Page = polls(connector).poll("issues", cursor)
        facts += [fact for fact in page.facts if isinstance(fact, Fact)]
        cursor = page.cursor
        if not page.more:
            return facts, cursor


def identity(fact: Fact) -> tuple[str, str, str]:
    return fact.type, fact.subject, fact.version


def fresh(facts: list[Fact], seen: list[Fact]) -> list[Fact]:
    """What intake would keep: it knows an event by its type, subject and version."""
    before = {identity(fact) for fact in seen}
    return [fact for key, fact in {identity(fact): fact for fact in facts}.items() if key not in before]


def told(facts: list[Fact], issue: str) -> list[str]:
    return [fact.type.removeprefix("work.task.") for fact in facts if fact.subject == f"task/pm/{issue}"]


@pytest.fixture
def project(redmine: RedmineServer) -> str:
    """A project of this test's own, made by a person."""
    made = redmine.api("POST", "projects", {"project": {"name": "试点", "identifier": f"p-{uuid.uuid4().hex[:12]}"}})
    return str(made["project"]["id"])


@pytest.fixture
def issue(redmine: RedmineServer, project: str) -> Callable[..., str]:
    def make(**values: Any) -> str:
        body = {"issue": {"project_id": project, "subject": "启动会", **values}}
        return str(redmine.api("POST", "issues", body)["issue"]["id"])

    return make


def change(redmine: RedmineServer, issue: str, user: str = "admin", **values: Any) -> None:
    redmine.api("PUT", f"issues/{issue}", {"issue": values}, user=user)


class TestCommands:
    def test_a_project_asked_for_twice_is_one(self, redmine: RedmineServer) -> None:
        target = sends(connected(redmine))
        asked = command("project.create", name="交付 ACME 二期", customer="北京客户")
        assert target.find(asked) is None
        made = target.send(asked)
        assert target.find(asked) == made
        assert target.send(asked) == made
        there = redmine.api("GET", f"projects/{made.id}")["project"]
        assert there["name"] == "交付 ACME 二期"
        assert there["identifier"] == f"baton-{asked.id}"
        assert "北京客户" in there["description"]
        assert "赢单自动立项" in there["description"]

    def test_a_task_carries_all_that_was_asked_and_is_found_again(self, redmine: RedmineServer) -> None:
        target = sends(connected(redmine))
        made_project = target.send(command("project.create", name="交付"))
        asked = command(
            "task.create", title="启动会：需求确认", project=made_project.id, assignee="li.lei", due="2020-01-31"
        )
        other = command("task.create", title="启动会：需求确认", project=made_project.id)
        assert target.find(asked) is None
        made = target.send(asked)
        assert target.find(asked) == made
        assert target.find(other) is None
        there = redmine.api("GET", f"issues/{made.id}")["issue"]
        assert there["subject"] == "启动会：需求确认"
        assert there["project"]["id"] == int(made_project.id or 0)
        assert there["assigned_to"]["name"] == "雷 李"
        assert there["due_date"] == "2020-01-31"
        assert there["tracker"]["name"] == "Feature"
        assert [each["value"] for each in there["custom_fields"]] == [asked.id]

    def test_a_closed_task_is_found_too_and_of_copies_the_first(self, redmine: RedmineServer, project: str) -> None:
        target = sends(connected(redmine))
        asked = command("task.create", title="a", project=project)
        made = target.send(asked)
        field = redmine.api("GET", f"issues/{made.id}")["issue"]["custom_fields"]
        copy = {"project_id": project, "subject": "copy", "custom_fields": field}
        redmine.api("POST", "issues", {"issue": copy})
        change(redmine, str(made.id), status_id=5)
        assert target.find(asked) == made

    def test_a_task_of_no_project_goes_to_the_default_one(self, redmine: RedmineServer) -> None:
        target = sends(connected(redmine, project="inbox-a", project_name="收件箱"))
        first = target.send(command("task.create", title="a", assignee="lin.tao"))
        second = target.send(command("task.create", title="b", project="", assignee="li.lei"))
        for made in (first, second):
            assert redmine.api("GET", f"issues/{made.id}")["issue"]["project"]["name"] == "收件箱"

    def test_tasks_sent_at_once_share_the_project_and_the_member_that_they_need(self, redmine: RedmineServer) -> None:
        target = sends(connected(redmine, project="inbox-b"))
        asked = [command("task.create", title=f"t{n}", assignee="lin.tao") for n in range(4)]

        def carried_out(each: Command) -> Effect:
            """As the executor does: Redmine on SQLite may answer 500 to one of two that write at once, which leaves a doubt."""
            try:
                return target.send(each)
            except UncertainError:
                return target.find(each) or target.send(each)

        with ThreadPoolExecutor(4) as threads:
            made = list(threads.map(carried_out, asked))
        assert [target.find(each) for each in asked] == made
        assert len({each.id for each in made}) == 4

    def test_an_administrator_s_key_is_not_needed(self, redmine: RedmineServer, project: str) -> None:
        """As the README says: a manager's key, people by number, and the field by number."""
        manager, worker = _user(redmine, "li.lei"), str(_user(redmine, "lin.tao"))
        membership = {"user_id": manager, "role_ids": [3]}
        redmine.api("POST", f"projects/{project}/memberships", {"membership": membership})
        key = redmine.api("GET", f"users/{manager}")["user"]["api_key"]
        connector = connected(redmine, key=key, accounts="id", mark_field=1)
        assert connector.check is not None
        assert "li.lei" in connector.check()
        _, cursor = read(connector, None)
        target = sends(connector)
        made = target.send(command("project.create", name="经理的项目"))
        asked = command("task.create", title="a", project=made.id, assignee=worker)
        task = target.send(asked)
        assert target.find(asked) == task
        target.send(command("task.update", task=task.id, done=True))
        facts, _ = read(connector, cursor)
        (done,) = [fact for fact in facts if fact.subject == f"task/pm/{task.id}"]
        assert (done.type, done.actor, done.data["assignee"]) == ("work.task.completed", str(manager), worker)
        with pytest.raises(FatalError, match="HUB-E4301"):
            sends(connected(redmine, key=key)).send(command("task.create", title="a", project=project))

    def test_what_redmine_refuses_is_rejected_in_its_own_words(self, redmine: RedmineServer, project: str) -> None:
        target = sends(connected(redmine))
        with pytest.raises(RejectedError, match="Project cannot be blank"):
            target.send(command("task.create", title="a", project="999999"))
        with pytest.raises(RejectedError, match="Project cannot be blank"):
            target.send(command("task.create", title="a", project="no-such-project", assignee="li.lei"))
        with pytest.raises(RejectedError, match="Subject is too long"):
            target.send(command("task.create", title="长" * 256, project=project))
        with pytest.raises(RejectedError, match=r"HUB-E4304.*nobody"):
            target.send(command("task.create", title="a", project=project, assignee="nobody"))
        with pytest.raises(RejectedError, match="Name is too long"):
            target.send(command("project.create", name="长" * 256))

    def test_a_task_is_changed_once_and_says_by_whose_command(
        self, redmine: RedmineServer, issue: Callable[..., str]
    ) -> None:
        target, task = sends(connected(redmine)), issue(start_date="2026-03-01")
        asked = command("task.update", task=task, title="改期", assignee="li.lei", due="2026-02-01", done=True)
        assert target.find(asked) is None
        assert target.send(asked).id == task
        found = target.find(asked)
        assert found is not None
        assert found.id == task
        there = redmine.api("GET", f"issues/{task}")["issue"]
        assert (there["subject"], there["due_date"], there["status"]["name"]) == ("改期", "2026-02-01", "Closed")
        assert there["assigned_to"]["name"] == "雷 李"
        target.send(command("task.update", task=task, done=False))
        assert not redmine.api("GET", f"issues/{task}")["issue"]["status"]["is_closed"]

    def test_a_status_that_the_workflow_forbids_is_rejected_not_passed_over(
        self, redmine: RedmineServer, issue: Callable[..., str]
    ) -> None:
        parent = issue()
        issue(parent_issue_id=parent)
        with pytest.raises(RejectedError, match=r"HUB-E4305"):
            sends(connected(redmine)).send(command("task.update", task=parent, title="b", done=True))
        assert redmine.api("GET", f"issues/{parent}")["issue"]["subject"] == "启动会"

    def test_a_closed_project_parks_its_commands_and_stops_nobody_else(
        self, redmine: RedmineServer, project: str, issue: Callable[..., str]
    ) -> None:
        target, task = sends(connected(redmine)), issue()
        redmine.api("PUT", f"projects/{project}/close")
        with pytest.raises(RejectedError):
            target.send(command("task.create", title="a", project=project))
        with pytest.raises(RejectedError):
            target.send(command("task.update", task=task, title="b"))

    def test_a_task_that_is_gone_is_rejected(self, redmine: RedmineServer) -> None:
        with pytest.raises(RejectedError, match=r"HUB-E4306"):
            sends(connected(redmine)).send(command("task.update", task="999999", done=True))


class TestOutages:
    def test_work_whose_answer_is_lost_is_doubtful_and_then_found(self, redmine: RedmineServer, project: str) -> None:
        with losing_answers(redmine) as url:
            target = sends(connected(redmine, url=url, mark_field=1, tracker=None))
            asked = [
                command("task.create", title="丢失的答复", project=project),
                command("project.create", name="丢失的答复"),
            ]
            for each in asked:
                with pytest.raises(UncertainError):
                    target.send(each)
        target = sends(connected(redmine))
        task, made = (target.find(each) for each in asked)
        assert task is not None
        assert redmine.api("GET", f"issues/{task.id}")["issue"]["subject"] == "丢失的答复"
        assert made is not None
        assert redmine.api("GET", f"projects/{made.id}")["project"]["name"] == "丢失的答复"

    def test_a_request_that_nobody_answers_is_doubtful(self, redmine: RedmineServer, project: str) -> None:
        """Puma forgets a request that its client gave up before it was looked at: here it was not done."""
        target = sends(connected(redmine, limits={"timeout": 1.0}, mark_field=1, tracker=None))
        asked = command("task.create", title="冻结", project=project)
        with redmine.frozen(), pytest.raises(UncertainError):
            target.send(asked)
        made = target.find(asked) or target.send(asked)
        assert redmine.api("GET", "issues", cf_1=asked.id, status_id="*")["total_count"] == 1
        assert target.find(asked) == made

    def test_while_it_is_away_nothing_is_doubtful_and_reading_goes_on_afterwards(
        self, redmine: RedmineServer, issue: Callable[..., str], project: str
    ) -> None:
        connector, task = connected(redmine), issue()
        _, cursor = read(connector, None)
        asked = command("task.create", title="a", project=project)
        sends(connector).find(asked)
        with redmine.away():
            for call in (
                lambda: polls(connector).poll("issues", cursor),
                lambda: sends(connector).send(asked),
                lambda: sends(connector).find(asked),
            ):
                with pytest.raises(RetryableError) as away:
                    call()
                assert not isinstance(away.value, UncertainError)
        change(redmine, task, status_id=5)
        facts, _ = read(connector, cursor)
        assert told(facts, task) == ["completed"]
        assert sends(connector).find(asked) is None

    def test_a_wrong_key_is_fatal_even_where_strangers_may_read(self, redmine: RedmineServer, project: str) -> None:
        connector = connected(redmine, key="0" * 40, mark_field=1, tracker=None)
        assert connector.check is not None
        with pytest.raises(FatalError, match="HUB-E4003"):
            connector.check()
        with pytest.raises(FatalError, match="HUB-E4003"):
            polls(connector).poll("issues", None)
        for type_, arguments in (
            ("task.create", {"title": "a", "project": project}),
            ("project.create", {"name": "a"}),
        ):
            with pytest.raises(FatalError, match="HUB-E4003"):
                sends(connector).send(command(type_, **arguments))
        with pytest.raises(FatalError, match="HUB-E4003"):
            sends(connector).find(command("task.create", title="a"))

    def test_check_says_who_we_are_and_what_is_missing(self, redmine: RedmineServer) -> None:
        connector = connected(redmine)
        assert connector.check is not None
        assert "admin · cf_1 · role 4 · tracker 2" in connector.check()
        for settings, code, words in (
            ({"mark_field": "Nope"}, "HUB-E4302", "Nope"),
            ({"role": ["Boss"]}, "HUB-E4012", "Manager | Developer | Reporter"),
            ({"tracker": "Task"}, "HUB-E4012", "Bug | Feature | Support"),
        ):
            missing = connected(redmine, **settings)
            assert missing.check is not None
            with pytest.raises(FatalError, match=code) as raised:
                missing.check()
            assert words in str(raised.value)

    def test_a_field_that_cannot_be_searched_by_is_noticed(self, redmine: RedmineServer, project: str) -> None:
        target = sends(connected(redmine, mark_field=77))
        made = target.send(command("task.create", title="unmarked", project=project))
        assert made.id is not None
        with pytest.raises(FatalError, match="HUB-E4302"):
            target.find(command("task.create", title="a", project=project))
        with pytest.raises(RejectedError, match="HUB-E4303"):
            target.send(command("task.create", title="a", project=project))


class TestEvents:
    def test_completion_is_read_back_once(self, redmine: RedmineServer, project: str) -> None:
        connector = connected(redmine)
        _, cursor = read(connector, None)
        made = sends(connector).send(command("task.create", title="验收", project=project, assignee="li.lei"))
        task = str(made.id)
        change(redmine, task, user="li.lei", status_id=5, notes="完成了")
        facts, after = read(connector, cursor)
        (done,) = [fact for fact in facts if fact.subject == f"task/pm/{task}"]
        assert done.type == "work.task.completed"
        assert done.actor == "li.lei"
        assert done.data == {"title": "验收", "project": project, "assignee": "li.lei", "by": "li.lei"}
        assert (done.belongs_to, done.origin) == (None, None)
        again, _ = read(connected(redmine), cursor)
        assert [fact for fact in again if fact.subject == done.subject] == [done]
        assert told(read(connector, after)[0], task) == []

    def test_states_passed_through_while_nobody_looked_are_all_there_in_order(
        self, redmine: RedmineServer, issue: Callable[..., str]
    ) -> None:
        connector = connected(redmine)
        _, cursor = read(connector, None)
        first = issue()
        redmine.api(
            "POST",
            f"projects/{redmine.api('GET', f'issues/{first}')['issue']['project']['id']}/memberships",
            {"membership": {"user_id": _user(redmine, "li.lei"), "role_ids": [4]}},
        )
        second = issue()
        change(redmine, first, assigned_to_id=_user(redmine, "li.lei"))
        change(redmine, first, user="li.lei", status_id=2)
        change(redmine, second, status_id=6)
        change(redmine, first, user="li.lei", status_id=5, subject="启动会（已开）")
        change(redmine, first, status_id=2, subject="启动会（再开）")
        change(redmine, first, status_id=5)
        facts, _ = read(connector, cursor)
        ours = [fact for fact in facts if fact.subject in (f"task/pm/{first}", f"task/pm/{second}")]
        assert told(ours, first) == [
            "created", "assigned", "started", "completed", "reopened", "started", "completed",
        ]  # fmt: skip
        assert told(ours, second) == ["created", "cancelled"]
        mine = [fact for fact in ours if fact.subject == f"task/pm/{first}"]
        assert [fact.data["title"] for fact in mine] == [*["启动会"] * 3, "启动会（已开）", *["启动会（再开）"] * 3]
        assert [fact.actor for fact in mine[1:4]] == ["admin", "li.lei", "li.lei"]
        versions = [int(fact.version) for fact in ours]
        assert versions == sorted(versions)

    def test_our_own_change_comes_back_with_its_command(self, redmine: RedmineServer, project: str) -> None:
        connector = connected(redmine)
        task = sends(connector).send(command("task.create", title="a", project=project)).id
        _, cursor = read(connector, None)
        asked = command("task.update", task=task, done=True)
        sends(connector).send(asked)
        facts, _ = read(connector, cursor)
        assert [(fact.type, fact.origin) for fact in facts if fact.subject == f"task/pm/{task}"] == [
            ("work.task.completed", asked.id)
        ]

    def test_an_issue_that_a_person_adds_follows_its_project(
        self, redmine: RedmineServer, issue: Callable[..., str], project: str
    ) -> None:
        connector = connected(redmine)
        _, cursor = read(connector, None)
        task = issue()
        (fact,) = [fact for fact in read(connector, cursor)[0] if fact.subject == f"task/pm/{task}"]
        assert (fact.type, fact.version, fact.belongs_to) == ("work.task.created", "0", f"project/pm/{project}")

    def test_a_change_in_the_second_of_the_last_poll_is_told(
        self, redmine: RedmineServer, issue: Callable[..., str]
    ) -> None:
        connector, task = connected(redmine), issue()
        _, cursor = read(connector, None)
        seen: list[Fact] = []
        for status in (2, 5, 1, 2, 5):
            change(redmine, task, status_id=status)
            facts, cursor = read(connector, cursor)
            seen += fresh(facts, seen)
        assert told(seen, task) == ["started", "completed", "reopened", "started", "completed"]

    @pytest.mark.parametrize("page", [5, pytest.param(client.PAGE_SIZE, marks=[pytest.mark.slow, pytest.mark.nightly])])
    def test_more_issues_than_fit_a_page_are_all_told(
        self, redmine: RedmineServer, issue: Callable[..., str], page: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (client, source):
            monkeypatch.setattr(module, "PAGE_SIZE", page)
        connector, busy = connected(redmine), [issue(subject=f"t{n}") for n in range(page + 1)]
        _, cursor = read(connector, None)
        for task in busy:
            change(redmine, task, status_id=5)
        first = polls(connector).poll("issues", cursor)
        assert first.more
        rest, _ = read(connector, first.cursor)
        facts = [fact for fact in (*first.facts, *rest) if isinstance(fact, Fact)]
        assert [told(fresh(facts, []), task) for task in busy] == [["completed"]] * len(busy)

    def test_more_issues_of_one_second_than_fit_a_page_are_all_told(
        self, redmine: RedmineServer, issue: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As an import makes them."""
        for module in (client, source):
            monkeypatch.setattr(module, "PAGE_SIZE", 5)
        connector, busy = connected(redmine), [issue(subject=f"t{n}") for n in range(11)]
        assert len(redmine_client(redmine).changed("2020-01-01T00:00:00Z")) == 5
        _, cursor = read(connector, None)
        for task in busy:
            change(redmine, task, status_id=5)
        with sqlite3.connect(redmine.root / "redmine.db", timeout=DEADLINE) as database:
            database.execute(
                f"update issues set updated_on = (select max(updated_on) from issues) where id in ({','.join(busy)})"
            )
        facts, _ = read(connector, cursor)
        assert [told(fresh(facts, []), task) for task in busy] == [["completed"]] * len(busy)

    def test_reading_starts_where_the_settings_say(self, redmine: RedmineServer, issue: Callable[..., str]) -> None:
        task = issue()
        change(redmine, task, status_id=5)
        assert told(read(connected(redmine), None)[0], task) == []
        facts, _ = read(connected(redmine, since=redmine.api("GET", f"issues/{task}")["issue"]["created_on"]), None)
        assert told(facts, task) == ["created", "completed"]

    def test_a_deleted_issue_is_invisible_and_stops_nothing(
        self, redmine: RedmineServer, issue: Callable[..., str]
    ) -> None:
        connector, gone, stays = connected(redmine), issue(), issue()
        _, cursor = read(connector, None)
        change(redmine, gone, status_id=5)
        change(redmine, stays, status_id=5)
        redmine.api("DELETE", f"issues/{gone}")
        facts, _ = read(connector, cursor)
        assert (told(facts, gone), told(facts, stays)) == ([], ["completed"])

    def test_who_is_named_by_number(self, redmine: RedmineServer, project: str) -> None:
        connector = connected(redmine, accounts="id", mark_field=1)
        _, cursor = read(connector, None)
        user = str(_user(redmine, "lin.tao"))
        task = str(sends(connector).send(command("task.create", title="a", project=project, assignee=user)).id)
        change(redmine, task, user="lin.tao", status_id=2)
        (fact,) = [fact for fact in read(connector, cursor)[0] if fact.subject == f"task/pm/{task}"]
        assert (fact.type, fact.actor, fact.data["assignee"]) == ("work.task.started", user, user)


@contextlib.contextmanager
def losing_answers(redmine: RedmineServer) -> Iterator[str]:
    """The address of a gateway that passes each request on and hangs up in place of the answer."""

    class Losing(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.post(redmine.url + self.path, body, headers=dict(self.headers), timeout=DEADLINE)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Losing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def redmine_client(redmine: RedmineServer) -> client.RedmineClient:
    return client.RedmineClient(redmine.url, redmine.key, name="pm", limits=RateLimits())


def _user(redmine: RedmineServer, login: str) -> int:
    return int(redmine.api("GET", "users", name=login)["users"][0]["id"])
