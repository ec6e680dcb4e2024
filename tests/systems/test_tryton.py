"""The Tryton connector against a real Tryton: what its people do becomes facts, and commands become records, once."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from connectors.tryton import client as typed_json
from connectors.tryton.client import TrytonClient
from connectors.tryton.connector import connect
from connectors.tryton.demo.people import COMPANY, DemoAccess, ProjectMember, Salesperson
from connectors.tryton.demo.server import RealTryton
from connectors.tryton.mapping import OPPORTUNITY_FIELDS, WORK_FIELDS
from connectors.tryton.source import TrytonSource
from connectors.tryton.target import TrytonTarget
from hub.errors import FatalError, RejectedError, RetryableError, UncertainError
from hub.kit import registry
from hub.kit.connector import CommandSink, Connector, Effect, Fact, Instance, PollingSource, RateLimits
from schemas.envelope import Command

pytestmark = pytest.mark.systems
SAMPLES = registry.folder("tryton") / "samples"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTryton]:
    """One real Tryton for this module; each test looks only at what it made itself."""
    with RealTryton(tmp_path_factory.mktemp("tryton")) as running:
        yield running


@pytest.fixture
def account(server: RealTryton) -> DemoAccess:
    return server.account()


@pytest.fixture
def seller(account: DemoAccess) -> Iterator[Salesperson]:
    with Salesperson(account) as person:
        yield person


@pytest.fixture
def engineer(account: DemoAccess) -> Iterator[ProjectMember]:
    with ProjectMember(account, account.engineer) as person:
        yield person


@pytest.fixture
def crm(account: DemoAccess) -> Connector:
    return connected(account, since="now")


@pytest.fixture
def source(crm: Connector) -> PollingSource:
    assert crm.polls is not None
    return crm.polls


@pytest.fixture
def target(crm: Connector) -> CommandSink:
    assert crm.sends is not None
    return crm.sends


def connected(account: DemoAccess, **more: Any) -> Connector:
    return connect(Instance("crm", "tryton", {**account.settings(), **more}))


def polled(source: PollingSource, stream: str, cursor: str | None) -> tuple[list[Fact], str]:
    """All facts after a cursor, and the cursor after them."""
    facts: list[Fact] = []
    more = True
    while more:
        page = source.poll(stream, cursor)
        facts += [fact for fact in page.facts if isinstance(fact, Fact)]
        cursor, more = page.cursor, page.more
    assert cursor is not None
    return facts, cursor


def told(facts: list[Fact], id_: int) -> list[tuple[str, str]]:
    """Type and stage of what was told of one opportunity."""
    return [(fact.type, fact.data["stage"]) for fact in facts if fact.subject == f"opportunity/crm/{id_}"]


def ids(facts: list[Fact]) -> list[tuple[str, str, str]]:
    return [(fact.type, fact.subject, fact.version) for fact in facts]


def command(type_: str, id_: str, **arguments: object) -> Command:
    return Command(
        id=id_,
        type=type_,
        instance="crm",
        case="opportunity/crm/1",
        time="2026-11-22T00:00:00.000000Z",
        causationid="e-1",
        subject="opportunity/crm/1",
        rule="won",
        digest="d",
        arguments=arguments,
        position=0,
    )


WON = [
    ("crm.opportunity.created", "lead"),
    ("crm.opportunity.changed", "opportunity"),
    ("crm.opportunity.changed", "converted"),
    ("crm.opportunity.won", "won"),
]


def test_a_deal_won_while_nobody_looked_is_told_state_by_state(source: PollingSource, seller: Salesperson) -> None:
    _, cursor = polled(source, "opportunities", None)
    deal = seller.create_opportunity("智慧园区一期", "上海云帆科技", "128000.50")
    seller.win(deal)
    facts, _ = polled(source, "opportunities", cursor)
    assert told(facts, deal) == WON
    won = facts[-1]
    assert won.data["name"] == "智慧园区一期"
    assert won.data["account"] == "上海云帆科技"
    assert (won.data["amount"], won.data["currency"]) == ("128000.50", "CNY")
    assert (won.data["owner"], won.actor) == ("wang.fang", "wang.fang")
    assert [fact.time for fact in facts] == sorted(fact.time for fact in facts)


def test_the_same_cursor_gives_the_same_facts_and_the_next_one_gives_none(
    source: PollingSource, seller: Salesperson
) -> None:
    _, cursor = polled(source, "opportunities", None)
    deal = seller.create_opportunity("两次轮询", "上海云帆科技", "10")
    seller.pursue(deal)
    first, after = polled(source, "opportunities", cursor)
    again, same = polled(source, "opportunities", cursor)
    assert first == again
    assert after == same
    quiet, still = polled(source, "opportunities", after)
    assert (quiet, still) == ([], after)


def test_states_are_the_same_facts_whether_polled_one_by_one_or_all_at_once(
    source: PollingSource, seller: Salesperson
) -> None:
    _, start = polled(source, "opportunities", None)
    one_by_one: list[Fact] = []
    cursor = start
    deal = seller.create_opportunity("逐步", "杭州北辰", "500")
    steps: list[Callable[[], None]] = [
        lambda: None,
        lambda: seller.pursue(deal),
        lambda: seller.change_amount(deal, "750.25"),
        lambda: seller.lose(deal),
        lambda: seller.revive(deal),
    ]
    for step in steps:
        step()
        facts, cursor = polled(source, "opportunities", cursor)
        one_by_one += facts
    at_once, _ = polled(source, "opportunities", start)
    assert one_by_one == at_once
    assert told(at_once, deal) == [
        ("crm.opportunity.created", "lead"),
        ("crm.opportunity.changed", "opportunity"),
        ("crm.opportunity.changed", "opportunity"),
        ("crm.opportunity.lost", "lost"),
        ("crm.opportunity.reopened", "lead"),
    ]
    assert at_once[2].data["amount"] == "750.25"


def test_a_won_deal_that_gets_a_second_sale_is_open_until_that_is_confirmed(
    source: PollingSource, seller: Salesperson
) -> None:
    _, cursor = polled(source, "opportunities", None)
    deal = seller.create_opportunity("追加", "杭州北辰", "1000")
    seller.win(deal)
    more = seller.sell_more(deal, "200")
    seller.confirm(more)
    facts, _ = polled(source, "opportunities", cursor)
    assert told(facts, deal) == [*WON, ("crm.opportunity.reopened", "converted"), ("crm.opportunity.won", "won")]
    assert facts[-1].data["amount"] == "1200.00"
    assert len({fact.version for fact in facts if fact.type == "crm.opportunity.won"}) == 2


def test_a_change_that_says_nothing_to_others_is_no_fact(source: PollingSource, seller: Salesperson) -> None:
    _, cursor = polled(source, "opportunities", None)
    deal = seller.create_opportunity("备注", "杭州北辰", "1")
    seller.client.write("sale.opportunity", [deal], {"comment": "call again", "conversion_probability": 0.8})
    facts, _ = polled(source, "opportunities", cursor)
    assert told(facts, deal) == [("crm.opportunity.created", "lead")]


def test_what_was_there_before_the_hub_is_told_from_its_next_change(account: DemoAccess, seller: Salesperson) -> None:
    deal = seller.create_opportunity("老商机", "杭州北辰", "1")
    fresh = connected(account, since="now").polls
    assert fresh is not None
    before, cursor = polled(fresh, "opportunities", None)
    assert before == []
    seller.lose(deal)
    facts, _ = polled(fresh, "opportunities", cursor)
    assert told(facts, deal) == [("crm.opportunity.lost", "lost")]


def test_from_the_beginning_every_past_state_is_told_over_several_pages(
    account: DemoAccess, seller: Salesperson
) -> None:
    deals = [seller.create_opportunity(f"批量 {number}", "宁波海通", "5") for number in range(30)]
    seller.lose(deals[0])
    whole = connected(account, since="beginning").polls
    assert whole is not None
    assert whole.poll("opportunities", None).more
    facts, cursor = polled(whole, "opportunities", None)
    assert all(("crm.opportunity.created", "lead") in told(facts, deal) for deal in deals)
    assert told(facts, deals[0])[-1] == ("crm.opportunity.lost", "lost")
    assert len(set(ids(facts))) == len(ids(facts))
    assert polled(whole, "opportunities", cursor) == ([], cursor)


def test_a_commit_that_arrives_late_is_still_told(source: PollingSource, seller: Salesperson) -> None:
    """A cursor that saw a newer change reads the window before it again: here as if the older one was not there yet."""
    _, cursor = polled(source, "opportunities", None)
    late = seller.create_opportunity("迟到", "宁波海通", "5")
    newer = seller.create_opportunity("较新", "宁波海通", "5")
    seen, after = polled(source, "opportunities", cursor)
    assert told(seen, late)
    forgetful = after.replace(f'"{late}":', '"999999":')
    facts, _ = polled(source, "opportunities", forgetful)
    assert told(facts, late) == [("crm.opportunity.created", "lead")]
    assert told(facts, newer) == []


def test_a_deleted_opportunity_stops_nobody(source: PollingSource, seller: Salesperson, account: DemoAccess) -> None:
    _, cursor = polled(source, "opportunities", None)
    gone = seller.create_opportunity("误建", "宁波海通", "5")
    seller.client.press("sale.opportunity", "cancel", [gone])
    seller.client.call("model.sale.opportunity.delete", [gone], writes=True)
    kept = seller.create_opportunity("保留", "宁波海通", "5")
    facts, _ = polled(source, "opportunities", cursor)
    assert [fact.subject for fact in facts] == [f"opportunity/crm/{kept}"]


def test_an_opportunity_deleted_between_two_requests_is_told_as_it_was(
    crm: Connector, seller: Salesperson, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = crm.polls
    assert isinstance(source, TrytonSource)
    _, cursor = polled(source, "opportunities", None)
    gone = seller.create_opportunity("误建", "宁波海通", "5")
    seller.client.press("sale.opportunity", "cancel", [gone])
    ask = source._client.revisions

    def delete_first(model: str, of: Sequence[int]) -> dict[int, list[datetime]]:
        seller.client.call("model.sale.opportunity.delete", [gone], writes=True)
        return ask(model, of)

    monkeypatch.setattr(source._client, "revisions", delete_first)
    facts, after = polled(source, "opportunities", cursor)
    assert told(facts, gone) == [("crm.opportunity.created", "lead"), ("crm.opportunity.lost", "cancelled")]
    assert polled(source, "opportunities", after) == ([], after)


def test_works_made_at_the_same_moment_are_all_made_once(target: CommandSink) -> None:
    """On SQLite Tryton gives two of them one number and refuses the second: that must come out as retryable."""
    commands = [command("task.create", f"c-par-{number}", title=f"并行 {number}") for number in range(24)]

    def make(asked: Command) -> str | None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                return target.send(asked).id
            except UncertainError:
                if found := target.find(asked):
                    return found.id
            except RetryableError:
                continue
        return None

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(make, commands))
    assert len(set(made)) == len(commands)
    assert [target.find(asked) for asked in commands] == [Effect(id=one) for one in made]


def test_a_project_and_its_task_are_made_and_found_by_their_mark(target: CommandSink, account: DemoAccess) -> None:
    make = command("project.create", "c-0001", name="交付 智慧园区", customer="上海云帆科技有限公司")
    assert target.find(make) is None
    project = target.send(make)
    task = command("task.create", "c-0002", title="启动会", project=project.id, assignee="lin.tao", due="2026-12-01")
    made = target.send(task)
    assert target.find(make) == project
    assert target.find(task) == made
    assert target.find(command("task.create", "c-000", title="启动会")) is None
    assert target.find(command("project.create", "c-0002", name="x")) is None
    row = read_work(account, made.id)
    assert (row["name"], row["type"], row["parent"], row["parent."]["name"]) == (
        "启动会",
        "task",
        int(project.id or 0),
        "交付 智慧园区",
    )
    assert str(row["constraint_finish_date"]) == "2026-12-01"
    assert [one["employee."]["rec_name"] for one in row["allocations."]] == ["林涛"]
    assert row["comment"] == "baton:c-0002"


def test_a_copied_task_carries_the_mark_too_and_the_first_is_ours(target: CommandSink, account: DemoAccess) -> None:
    task = command("task.create", "c-copied", title="现场勘察")
    made = target.send(task)
    client = TrytonClient(account.url, account.database, account.lead, account.password)
    client.call("model.project.work.copy", [int(made.id or 0)], writes=True)
    client.close()
    assert target.find(task) == made


def test_a_customer_known_by_name_is_linked_and_any_other_is_named(
    target: CommandSink, seller: Salesperson, account: DemoAccess
) -> None:
    seller.create_opportunity("x", "苏州东吴", "1")
    known = target.send(command("project.create", "c-known", name="已知客户", customer="苏州东吴"))
    other = target.send(command("project.create", "c-other", name="未知客户", customer="无此公司"))
    assert read_work(account, known.id)["party."]["name"] == "苏州东吴"
    row = read_work(account, other.id)
    assert row["party"] is None
    assert row["comment"] == "客户 Customer: 无此公司\nbaton:c-other"


def test_a_server_without_planning_gets_who_and_when_in_the_comment(
    target: CommandSink, account: DemoAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrytonTarget, "_has_project_plan", False)
    made = target.send(command("task.create", "c-plain", title="启动会", assignee="lin.tao", due="2026-12-01"))
    row = read_work(account, made.id)
    assert row["comment"] == "负责人 Assignee: lin.tao\n截止 Due: 2026-12-01\nbaton:c-plain"
    assert (row["allocations."], row["constraint_finish_date"]) == ([], None)


def test_what_tryton_refuses_is_rejected(target: CommandSink) -> None:
    with pytest.raises(RejectedError) as unknown_project:
        target.send(command("task.create", "c-r1", title="x", project="999999"))
    assert unknown_project.value.code == "HUB-E4006"
    with pytest.raises(RejectedError) as nobody:
        target.send(command("task.create", "c-r2", title="x", assignee="no.body"))
    assert nobody.value.code == "HUB-E4104"
    assert target.find(command("task.create", "c-r1", title="x")) is None


def test_a_finished_task_is_told_once_and_again_after_it_was_reopened(
    source: PollingSource, target: CommandSink, engineer: ProjectMember
) -> None:
    project = target.send(command("project.create", "c-p", name="P")).id
    task = target.send(command("task.create", "c-t", title="部署", project=project)).id
    _, cursor = polled(source, "works", None)
    engineer.finish_task(int(task or 0))
    done, cursor = polled(source, "works", cursor)
    assert [(fact.type, fact.subject) for fact in done] == [("work.task.completed", f"task/crm/{task}")]
    assert (done[0].data["by"], done[0].actor, done[0].data["project"]) == ("lin.tao", "lin.tao", project)
    engineer.client.write("project.work", [int(task or 0)], {"comment": "edited after it was done"})
    quiet, cursor = polled(source, "works", cursor)
    assert quiet == []
    engineer.reopen_task(int(task or 0))
    opened, cursor = polled(source, "works", cursor)
    engineer.finish_task(int(task or 0))
    again, cursor = polled(source, "works", cursor)
    assert [fact.type for fact in (*opened, *again)] == ["work.task.reopened", "work.task.completed"]
    assert again[0].version != done[0].version
    assert polled(source, "works", cursor)[0] == []


def test_a_task_done_before_the_hub_came_is_known_as_done(
    account: DemoAccess, target: CommandSink, engineer: ProjectMember
) -> None:
    task = int(target.send(command("task.create", "c-early", title="旧任务")).id or 0)
    engineer.finish_task(task)
    fresh = connected(account, since="now").polls
    assert fresh is not None
    _, cursor = polled(fresh, "works", None)
    engineer.reopen_task(task)
    facts, _ = polled(fresh, "works", cursor)
    assert [(fact.type, fact.subject) for fact in facts] == [("work.task.reopened", f"task/crm/{task}")]


def test_a_finished_project_is_told(source: PollingSource, target: CommandSink, engineer: ProjectMember) -> None:
    project = int(target.send(command("project.create", "c-pd", name="收尾")).id or 0)
    _, cursor = polled(source, "works", None)
    engineer.finish_task(project)
    facts, _ = polled(source, "works", cursor)
    assert [(fact.type, fact.subject) for fact in facts] == [("work.project.completed", f"project/crm/{project}")]


def test_a_session_that_ran_out_is_renewed_in_the_midst_of_work(account: DemoAccess) -> None:
    client = TrytonClient(account.url, account.database, account.login, account.password)
    client.context()
    ended = client._session
    admin = TrytonClient(account.url, account.database, account.login, account.password)
    admin._session = ended
    admin.bare("common.db.logout")
    assert client.search("res.user", [["login", "=", account.login]], ["login"])[0]["login"] == account.login
    assert client._session != ended
    client.close()
    admin.close()


def test_a_wrong_password_is_fatal_and_never_shown(account: DemoAccess) -> None:
    wrong = connected(account, password="not-the-password", login="zhang.wei")
    assert wrong.check is not None
    with pytest.raises(FatalError) as refused:
        wrong.check()
    assert refused.value.code == "HUB-E4003"
    assert "not-the-password" not in refused.value.message("zh-CN") + refused.value.message("en")


def test_a_user_without_rights_is_told_what_it_may_not_read(account: DemoAccess) -> None:
    worker = connected(account, login=account.lead).polls
    assert worker is not None
    with pytest.raises(FatalError) as refused:
        worker.poll("opportunities", None)
    assert refused.value.code == "HUB-E4103"
    assert refused.value.seen["model"] == "sale.opportunity"


def test_an_unknown_database_is_away(account: DemoAccess) -> None:
    elsewhere = connected(account, database="nowhere")
    assert elsewhere.check is not None
    with pytest.raises(RetryableError) as missing:
        elsewhere.check()
    assert missing.value.code == "HUB-E4101"


def test_the_check_names_server_company_and_user(crm: Connector) -> None:
    assert crm.check is not None
    assert crm.check() == f"Tryton 8.2 · {COMPANY} (CNY) · baton"


def test_a_stopped_server_is_away_for_reading_and_for_writing(tmp_path: Path) -> None:
    with RealTryton(tmp_path) as server:
        crm = connected(server.account())
        assert crm.polls is not None
        assert crm.sends is not None
        _, cursor = polled(crm.polls, "opportunities", None)
    with pytest.raises(RetryableError) as away:
        crm.polls.poll("opportunities", cursor)
    assert away.value.code == "HUB-E4001"
    with pytest.raises(RetryableError) as unsent:
        crm.sends.send(command("project.create", "c-away", name="P"))
    assert not isinstance(unsent.value, UncertainError)


def test_a_create_that_nobody_answers_is_uncertain(account: DemoAccess) -> None:
    """A peer takes the request and breaks off: nobody knows whether it was done."""
    client = TrytonClient(account.url, account.database, account.login, account.password)
    client.context()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        client.url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        client._timeout = 0.2
        target = TrytonTarget(client, "crm", RateLimits())
        with pytest.raises(UncertainError) as late:
            target.send(command("project.create", "c-late", name="P"))
    assert late.value.code == "HUB-E4002"
    client.close()


def test_amounts_keep_the_digits_that_tryton_keeps(source: PollingSource, seller: Salesperson) -> None:
    _, cursor = polled(source, "opportunities", None)
    deal = seller.create_opportunity("精度", "宁波海通", Decimal("98765432.10"))
    facts, _ = polled(source, "opportunities", cursor)
    assert [fact.data["amount"] for fact in facts if fact.subject.endswith(f"/{deal}")] == ["98765432.10"]


def test_works_that_people_make_are_told_and_ours_are_told_by_their_command(
    source: PollingSource, target: CommandSink, account: DemoAccess
) -> None:
    _, cursor = polled(source, "works", None)
    ours = target.send(command("task.create", "c-ours", title="我们的")).id
    with ProjectMember(account, account.lead) as lead:
        project = lead.client.create("project.work", {"name": "内部", "type": "project"})
        theirs = lead.client.create("project.work", {"name": "他们的", "type": "task", "parent": project})
        facts, cursor = polled(source, "works", cursor)
        assert [(fact.type, fact.subject, fact.actor) for fact in facts] == [
            ("work.project.created", f"project/crm/{project}", "li.lei"),
            ("work.task.created", f"task/crm/{theirs}", "li.lei"),
        ]
        lead.finish_task(theirs)
        lead.finish_task(int(ours or 0))
    facts, _ = polled(source, "works", cursor)
    assert [(fact.type, fact.subject, fact.belongs_to) for fact in facts] == [
        ("work.task.completed", f"task/crm/{theirs}", f"project/crm/{project}"),
        ("work.task.completed", f"task/crm/{ours}", None),
    ]


def test_the_recorded_samples_have_the_form_of_real_answers(
    account: DemoAccess, seller: Salesperson, target: CommandSink
) -> None:
    deal = seller.create_opportunity("样本", "海川集团", "1")
    work = int(target.send(command("task.create", "c-sample", title="样本")).id or 0)
    client = TrytonClient(account.url, account.database, account.login, account.password)
    rows = {
        "revisions": client.read("sale.opportunity", [deal], OPPORTUNITY_FIELDS),
        "works": client.read("project.work", [work], WORK_FIELDS),
    }
    client.close()
    samples = [typed_json.loads(file.read_bytes()) for file in SAMPLES.glob("polls/*.json")]
    assert samples
    for sample in samples:
        for kind, (real,) in rows.items():
            assert all(set(row) == set(real) for row in sample.get(kind, []))


def read_work(account: DemoAccess, id_: str | None) -> dict[str, Any]:
    client = TrytonClient(account.url, account.database, account.login, account.password)
    fields = ["name", "type", "parent", "parent.name", "comment", "party", "party.name"]
    planned = ["constraint_finish_date", "allocations.employee.rec_name"]
    row = client.read("project.work", [int(id_ or 0)], fields + planned)[0]
    client.close()
    return row
